#pragma once

#include <string>

#include "absl/status/status.h"

namespace polystill::inference {

// Writes a package's model as one TorchScript module, forward(ids [rows, length] int64, mask [rows, length] bool) ->
// logits [rows, classes], of a model that judges tokens [rows, length, classes], which needs nothing of Polystill:
// torch.jit.load reads it in Python and C++. Parameters keep their names, with '_' for '.'. The same logits as in
// Polystill up to rounding; no dropout. A package that holds a TorchScript module gives that very file. The file
// appears whole or not at all. Errors as for models::LoadPackage, and RESOURCE_EXHAUSTED for a full disk.
absl::Status ExportTorchScript(const std::string& package, const std::string& path);

}  // namespace polystill::inference
