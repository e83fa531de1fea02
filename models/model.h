#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "polystill/v1/run.pb.h"

namespace polystill::models {

// Token ids of some rows, as models take them: ragged, row i is ids[offsets[i] .. offsets[i + 1]).
struct TokenBatch {
  at::Tensor ids;      // [tokens] int64
  at::Tensor offsets;  // [rows + 1] int64, first 0, last = tokens
};

// Makes a batch of rows [first, last) of `rows`; filled up with rows of the one id 0 to `fill_to` rows.
TokenBatch MakeBatch(const std::vector<std::vector<int32_t>>& rows, size_t first, size_t last, size_t fill_to = 0);

// A classifier over token ids. Parameters are plain tensors that require gradients, in a fixed order (the order of the
// Reducer's buckets and of the checkpoint). Forward may be called from several threads at once while no one writes the
// parameters.
class Model {
 public:
  virtual ~Model() = default;
  // Logits [rows, classes]. Throws c10::Error, as ATen does, on an id outside the vocabulary.
  virtual at::Tensor Forward(const TokenBatch& batch) const = 0;
  // Names as in the checkpoint, e.g. "embedding.weight".
  virtual checkpoint::NamedTensors NamedParameters() const = 0;
  // Whether a row's bits depend on the length that its batch is padded to: then batches hold rows of one length bucket.
  virtual bool pads_to_length() const = 0;
};

// What a checkpoint must know to make the model again.
struct ModelShape {
  v1::Model spec;
  int64_t vocab_size = 0;
  int64_t classes = 0;
  v1::Student::Dtype dtype = v1::Student::DTYPE_FLOAT32;
};

// A new model, its initial weights a pure function of (shape, seed): the same on every rank, whatever the number of
// threads. INVALID_ARGUMENT names the key that does not fit.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelShape& shape, uint64_t seed);

// Gives the model's parameters the values of `values`. INVALID_ARGUMENT names a tensor that is missing, surplus, of
// another shape or dtype, or holds a number that is not finite; nothing is changed then.
absl::Status SetParameters(const checkpoint::NamedTensors& values, Model* model);

// Number of trained numbers.
int64_t ParameterCount(const checkpoint::NamedTensors& parameters);

// The length that rows of `length` tokens are padded to by a model that pads: the next power of two, at least 16.
int64_t LengthBucket(int64_t length);

// Rows of one forward in repeatable mode.
inline constexpr int64_t kRowsPerForward = 32;

// Logits [rows, classes] of all rows by forwards of a fixed shape: kRowsPerForward rows each (the last filled up), rows
// of one length bucket together when the model pads. A fp32 forward's bits depend on its shape, but at a fixed shape
// not on the other rows: so a row's logits have the same bits whatever rows came with it, in whatever process on the
// same kind of CPU with the same number of threads. Keeps the autograd graph unless the caller has a NoGradGuard.
at::Tensor FixedShapeForward(const Model& model, const std::vector<std::vector<int32_t>>& rows);

// Lower-case hex SHA-256 over the bytes of all parameters, in order.
std::string WeightsDigest(const Model& model);

}  // namespace polystill::models
