#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/model.h"

namespace polystill::models {

// Loads a .pt2 that torch.export and AOTInductor made, for inference on the CPU: forward(ids, mask) with a dynamic
// number of rows and length, whose answer is a list of tensors; `outputs` names them in that order, and padded_model.h
// says what each is. It has no parameters that anybody could see. Forwards may run at once, as many as there are cores;
// more wait.
//
// A .pt2 is native code that runs with this process's rights: load none that you would not run. Tries one batch:
// NOT_FOUND, DATA_LOSS (not a whole .pt2), INVALID_ARGUMENT (compiled for another device or other inputs, other tensors
// than `outputs`), FAILED_PRECONDITION (for a CPU with instructions that this one lacks); all name the file. `shape`:
// task, classes and max_length count.
absl::StatusOr<std::unique_ptr<Model>> LoadAotModel(const std::string& path, const std::vector<std::string>& outputs,
                                                    const ModelShape& shape);

}  // namespace polystill::models
