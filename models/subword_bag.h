#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "models/init.h"
#include "models/model.h"

namespace polystill::models {

// Mean of subword embeddings, layer norm, hidden layers, linear head (fastText with a norm: Joulin et al. 2017,
// arXiv:1607.01759):
//
//   ids [tokens] --mean over the row--> [rows, width] --layer norm--> (linear, GELU) x hidden_layers --linear--> logits
//
// A row without tokens has the mean 0. The feature "embedding" is what the last linear layer reads. It judges whole
// rows alone.
class SubwordBag : public Model {
 public:
  // embedding.weight [vocab, width], norm.weight and norm.bias [width], then for each hidden layer hidden.I.weight
  // [width, width] and hidden.I.bias [width], then head.weight [classes, width] and head.bias [classes].
  // INVALID_ARGUMENT names the key of `shape` that does not fit.
  static absl::StatusOr<ParameterSpecs> Parameters(const ModelShape& shape);

  // `parameters`: drawn as Parameters says.
  explicit SubwordBag(checkpoint::NamedTensors parameters)
      : parameters_(std::move(parameters)), feature_widths_{{kEmbedding, parameters_[0].second.size(1)}} {}

  Outputs Forward(const TokenBatch& batch) const override;
  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  Takes takes() const override { return Takes::kRows; }
  bool judges_tokens() const override { return false; }
  const std::map<std::string, int64_t>& feature_widths() const override { return feature_widths_; }
  std::set<std::string> tables() const override { return {parameters_[0].first}; }
  Head head() const override;

 private:
  const checkpoint::NamedTensors parameters_;
  const std::map<std::string, int64_t> feature_widths_;
};

}  // namespace polystill::models
