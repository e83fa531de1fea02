#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "models/model.h"

namespace polystill::models {

// Mean of subword embeddings, layer norm, hidden layers, linear head (fastText with a norm: Joulin et al. 2017,
// arXiv:1607.01759):
//
//   ids [tokens] --mean over the row--> [rows, width] --layer norm--> (linear, GELU) x hidden_layers --linear--> logits
//
// A row without tokens has the mean 0. Initial weights: embeddings uniform with standard deviation 1/sqrt(width),
// linear layers uniform in +-1/sqrt(inputs) as PyTorch does, norm 1 and 0.
class SubwordBag : public Model {
 public:
  // INVALID_ARGUMENT names the key of `shape` that does not fit; RESOURCE_EXHAUSTED when memory does not hold it.
  static absl::StatusOr<std::unique_ptr<SubwordBag>> Create(const ModelShape& shape, uint64_t seed);
  // Number of parameters of a model of this shape, which is checked like in Create.
  static absl::StatusOr<int64_t> CountParameters(const ModelShape& shape);

  at::Tensor Forward(const TokenBatch& batch) const override;
  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  bool pads_to_length() const override { return false; }

 private:
  explicit SubwordBag(checkpoint::NamedTensors parameters) : parameters_(std::move(parameters)) {}

  // embedding.weight [vocab, width], norm.weight and norm.bias [width], then for each hidden layer hidden.I.weight
  // [width, width] and hidden.I.bias [width], then head.weight [classes, width] and head.bias [classes].
  const checkpoint::NamedTensors parameters_;
};

}  // namespace polystill::models
