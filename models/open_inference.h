#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/model.h"
#include "polystill/open_inference/grpc_service.pb.h"

// Padded batches as messages of the Open Inference Protocol, and its answers as tensors. What comes from a server is
// trusted with nothing. Pure functions.

namespace polystill::models {

// How a server calls a model and its tensors.
struct ServedModel {
  std::string name;
  // The server's choice when empty.
  std::string version = {};
  // Inputs, int64 [rows, tokens].
  std::string ids = "input_ids";
  std::string mask = "attention_mask";
  // The server's name of an output by ours (models/outputs.h); those that are missing have the same name there.
  std::map<std::string, std::string> outputs = {};
};

// Ours of the outputs that the server says it has, by its metadata; others are passed over. INVALID_ARGUMENT names what
// does not fit: an input that is missing, surplus or not INT64 [any, any], an output that `served` names and the server
// does not have, or one of another datatype than FP32.
absl::StatusOr<std::vector<std::string>> OutputsGiven(const inference::ModelMetadataResponse& metadata,
                                                      const ServedModel& served);

// Asks for `outputs` (our names) of a batch: raw contents, the mask 1 where a token is.
inference::ModelInferRequest InferRequestOf(const ServedModel& served, const std::vector<std::string>& outputs,
                                            const PaddedBatch& padded);

// An output as it must be.
struct ExpectedOutput {
  // As the server calls it.
  std::string name;
  // -1 in the last place: any width.
  std::vector<int64_t> shape;
};

// The outputs in the order of `expected`, float32, from raw or typed contents. INTERNAL names what is wrong: an output
// that is missing or stands twice, another datatype or shape, more or fewer numbers than the shape says.
absl::StatusOr<std::vector<at::Tensor>> OutputsOf(const inference::ModelInferResponse& response,
                                                  const std::vector<ExpectedOutput>& expected);

}  // namespace polystill::models
