#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "models/outputs.h"
#include "polystill/v1/run.pb.h"

namespace polystill::models {

// Lists of numbers, one a record: token ids, or places among them.
using Rows = std::vector<std::vector<int32_t>>;

// Token ids of some rows, as models take them: ragged, row i is ids[offsets[i] .. offsets[i + 1]). Ids behind the last
// row fill a forward up; nothing is given of them.
struct TokenBatch {
  at::Tensor ids;      // [tokens] int64
  at::Tensor offsets;  // [rows + 1] int64, first 0, last <= tokens
  // In training: for each row the key that its random draws follow from. Empty at inference, which draws nothing.
  std::vector<uint64_t> row_keys = {};
  // When the model judges tokens: those whose logits are wanted, [positions] int64 places in `ids`, ascending;
  // undefined: every token.
  at::Tensor positions = {};
  // Names of the features that are wanted beside the logits.
  std::vector<std::string> features = {};
  // What the head reads is wanted in place of the logits.
  bool head_input = false;
};

// What a batch is filled up to.
struct Shape {
  // With rows of the one id 0; with empty ones where tokens are filled up too.
  size_t rows = 0;
  // With ids 0 behind the last row.
  size_t tokens = 0;
};

TokenBatch MakeBatch(const Rows& rows, Shape fill_to = {});

// The linear layer that makes a model's logits: what it reads, times the weight, plus the bias.
struct Head {
  at::Tensor weight;  // [classes, width]
  at::Tensor bias;    // [classes]
};

// What a forward gives, row after row.
struct Outputs {
  // [rows, classes], or [positions, classes] of a model that judges tokens; undefined of one that gives features alone.
  // With TokenBatch::head_input: [rows or positions, width of the head].
  at::Tensor logits;
  std::map<std::string, at::Tensor> features;  // kEmbedding: [rows, width]; hidden.N: [tokens, width]
};

// Judges rows of token ids, or each of their tokens. Parameters are plain tensors that require gradients, in a fixed
// order (the order of the Reducer's buckets and of the checkpoint). Forward may be called from several threads at once
// while no one writes the parameters.
class Model {
 public:
  virtual ~Model() = default;
  // Throws c10::Error, as ATen does, on an id outside the vocabulary or a feature that the model does not have.
  virtual Outputs Forward(const TokenBatch& batch) const = 0;
  // Names as in the checkpoint, e.g. "embedding.weight".
  virtual checkpoint::NamedTensors NamedParameters() const = 0;
  // What the bits of a row depend on beside the row.
  enum class Takes {
    kRows,        // the batch's number of rows
    kTokens,      // that and the batch's number of tokens
    kPaddedRows,  // that and the length that they are padded to
    kAnyRows,     // more than that: it pads, and nothing is promised
  };
  virtual Takes takes() const = 0;
  // The type of device whose sizes of forwards suit it.
  virtual at::DeviceType sized_for() const { return device().type(); }
  // Whether the logits are those of tokens.
  virtual bool judges_tokens() const = 0;
  // The features that it can give, and how wide each is.
  virtual const std::map<std::string, int64_t>& feature_widths() const = 0;
  // Those of NamedParameters, by name, that a batch reads a few rows of: their gradients may be sparse, over the rows.
  virtual std::set<std::string> tables() const { return {}; }
  // What makes its logits, among its parameters; undefined when it is no such layer, or not known: then no batch may
  // ask for head_input.
  virtual Head head() const { return {}; }

  // The parameters will not change any more: forwards without gradients may use what was made of them beforehand. Their
  // last bits may be others then. Before Forward is called.
  virtual void Freeze() {}

  // Where its parameters are and its forwards run; the CPU at first. Batches are on the CPU wherever it is.
  at::Device device() const { return device_; }
  // FAILED_PRECONDITION, e.g. when the device's memory does not hold it. The parameters stay the same tensors.
  absl::Status MoveTo(at::Device device);

 private:
  // Moves what NamedParameters does not name. May throw c10::Error.
  virtual void MoveRest(at::Device /*device*/) {}
  at::Device device_ = at::kCPU;
};

// Forward throws it where the model is in another process that does not answer: asking again may succeed.
class EngineUnavailable final : public c10::Error {
 public:
  explicit EngineUnavailable(const std::string& message) : c10::Error({__func__, __FILE__, __LINE__}, message) {}
};

// What a checkpoint must know to make the model again.
struct ModelShape {
  v1::Model spec;
  int64_t vocab_size = 0;
  // Logits of a row or token: LogitCount. 0 of a model that gives features alone.
  int64_t classes = 0;
  v1::Student::Dtype dtype = v1::Student::DTYPE_FLOAT32;
  // Tokens of the longest row; subword_bag takes any.
  int64_t max_length = 0;
  v1::Task task = v1::TASK_CLASSIFICATION;
};

at::ScalarType ScalarTypeOf(v1::Student::Dtype dtype);

// A new model for training. A native one's initial weights are a pure function of (shape, seed): the same on every
// rank, whatever the number of threads; a TorchScript module has its own (LoadScriptStudent in models/script_model.h).
// INVALID_ARGUMENT names the key that does not fit, RESOURCE_EXHAUSTED when memory does not hold it.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelShape& shape, uint64_t seed);

// Number of trained numbers of a native model of this shape, which is checked like in MakeModel.
absl::StatusOr<int64_t> CountParameters(const ModelShape& shape);

// Gives the model's parameters the values of `values`. INVALID_ARGUMENT names a tensor that is missing, surplus, of
// another shape or dtype, or holds a number that is not finite; nothing is changed then.
absl::Status SetParameters(const checkpoint::NamedTensors& values, Model* model);

// Number of trained numbers.
int64_t ParameterCount(const checkpoint::NamedTensors& parameters);

// A batch as models take it that pad: `length` is the LengthBucket of the longest row, or in training
// (TokenBatch::row_keys) its TrainingLength; at most max_length.
struct PaddedBatch {
  at::Tensor ids;      // [rows, length] int64, 0 after a row's end
  at::Tensor mask;     // [rows, length] bool, true where a token is
  at::Tensor lengths;  // [rows] int64
};

// Throws c10::Error when a row is longer than max_length.
PaddedBatch PadToBucket(const TokenBatch& batch, int64_t max_length);

// [tokens, width] of padded [rows, length, width]: what stands at the rows' tokens, row after row.
at::Tensor TokensOf(const at::Tensor& padded, const PaddedBatch& batch);

// Rows of one forward in repeatable mode, of a model that does not pad.
inline constexpr int64_t kRowsPerForward = 32;

// Positions of one product with the head of a model that judges tokens, in repeatable mode.
inline constexpr int64_t kPositionsPerProduct = 64;

// What is wanted of some rows.
struct Wanted {
  // When the model judges tokens: for each row the places of those whose logits are wanted, ascending; empty: every
  // token of every row.
  Rows positions = {};
  // Names of features.
  std::vector<std::string> features = {};
  // What the head reads in place of the logits (TokenBatch::head_input).
  bool head_input = false;
  // Outputs stay on the model's device.
  bool on_device = false;
};

// Outputs of all rows, in their order, by forwards of fixed shapes (models/row_groups.h), filled up to what the model
// takes: kRowsPerForward rows; these and TokensPerForward tokens; RowsPerForward rows of one LengthBucket. A fp32
// forward's bits depend on its shape, but at a fixed shape not on the other rows: so a row's outputs have the same bits
// whatever rows came with it, in whatever process on the same kind of CPU with the same number of threads; those of a
// frozen model without gradients are others, and nothing is said of one that takes kAnyRows, whose forwards are not
// filled up. Outputs are on the CPU unless Wanted says otherwise. Keeps the autograd graph unless the caller has a
// NoGradGuard. Throws c10::Error, beside what Model::Forward does, on a position outside its row.
Outputs FixedShapeForward(const Model& model, const Rows& rows, const Wanted& wanted = {});

// Outputs of all rows in training, each with its key (TokenBatch::row_keys): one forward, or when the model pads one
// for each GroupByCost, none of them filled up; an empty slice is a forward all the same, so that every parameter gets
// a gradient. Outputs are on the model's device. Equal to FixedShapeForward but for rounding, which here depends on the
// rows, and what a model does in training alone.
Outputs TrainingForward(const Model& model, const Rows& rows, const std::vector<uint64_t>& row_keys,
                        const Wanted& wanted = {});

// Lower-case hex SHA-256 over the bytes of the parameters, in order; of a model, of those that are trained, each once.
std::string WeightsDigest(const checkpoint::NamedTensors& parameters);
std::string WeightsDigest(const Model& model);

}  // namespace polystill::models
