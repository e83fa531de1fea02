#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "models/model.h"

namespace polystill::models {

// Loads a TorchScript module for inference: gradients are not kept. Its forward(ids, mask) gives the logits alone, or a
// Dict[str, Tensor] of outputs by name; padded_model.h says which, and of what shapes. The graph runs as it was
// written, without the profiling executor, whose first calls would have other bits than later ones.
//
// Tries one batch: DATA_LOSS (not a TorchScript file), INVALID_ARGUMENT (forward does not take or give such tensors, or
// gives numbers that are not finite); both name the file. `shape`: task, classes and max_length count.
absl::StatusOr<std::unique_ptr<Model>> LoadScriptModel(const std::string& path, const ModelShape& shape);

// Loads the module of shape.spec.path for training, converted to shape.dtype. Its parameters that require gradients are
// the model's, under the module's names, and are trained in place; the others stay as they are. A forward in training
// (TokenBatch::row_keys) finds the module in train() mode and ATen's generator, which its dropout draws from, seeded by
// its first row's key: repeatable, but unlike native models' not the same for another number of workers.
//
// INVALID_ARGUMENT, naming file and parameter or buffer, beside the errors of LoadScriptModel: ids up to
// shape.vocab_size do not fit, no parameter requires a gradient, one gets none or shares memory with another, or a
// forward in training changes a buffer (running statistics of a batch norm, which no all-reduce would keep the same).
absl::StatusOr<std::unique_ptr<Model>> LoadScriptStudent(const ModelShape& shape);

// A model that one of these functions loaded, as the bytes of a TorchScript file.
absl::StatusOr<std::string> ScriptModelBytes(const Model& model);

// What a script calls a parameter: its name with '_' for '.'.
std::string ScriptAttribute(const std::string& parameter);

// The bytes of a TorchScript file of a module with these parameters (under their ScriptAttribute) and the methods of
// `source`. INTERNAL when the source does not compile.
absl::StatusOr<std::string> ScriptBytes(const checkpoint::NamedTensors& parameters, const std::string& source);

}  // namespace polystill::models
