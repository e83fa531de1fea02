#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/model.h"

namespace polystill::models {

// Loads a TorchScript module, forward(ids [rows, length] int64, mask [rows, length] bool) -> [rows, classes] of a
// floating type, for inference: gradients are not kept. A batch is padded with id 0 to the bucket of its longest row
// (LengthBucket, at most max_length); the mask is true where a token is. The graph runs as it was written, without the
// profiling executor, whose first calls would have other bits than later ones.
//
// Tries one batch: DATA_LOSS (not a TorchScript file), INVALID_ARGUMENT (forward does not take or give such tensors, or
// gives numbers that are not finite); both name the file.
absl::StatusOr<std::unique_ptr<Model>> LoadScriptModel(const std::string& path, int64_t classes, int64_t max_length);

}  // namespace polystill::models
