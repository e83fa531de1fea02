#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/init.h"
#include "models/model.h"

namespace polystill::models {

// Encoder with the norms before the sublayers (Xiong et al. 2020, arXiv:2002.04745) and learned positions:
//
//   ids [tokens], row behind row --embedding + position--> x [tokens, width]
//   x += linear(attention(layer norm(x))); x += linear(GELU(linear(layer norm(x))))     `layers` times
//   layer norm --mean over the row's tokens--> [rows, width] --linear--> logits, or
//                --each token--> linear --> logits (task token_classification), or
//                --each token--> linear, GELU, layer norm, product with the embedding's rows, + bias --> logits
//                  (task masked_lm: Devlin et al. 2019, arXiv:1810.04805; tied: Press and Wolf 2017, arXiv:1608.05859)
//
// Features: "embedding", the mean that a head of rows reads; "hidden.0", x before the first layer, "hidden.I" after I
// of them, the last one after the last norm.
//
// Nothing is padded on a CPU (models/ragged.h). A row without tokens has the mean 0. In training (TokenBatch::row_keys)
// dropout falls on x after the embedding and on what each sublayer adds; its masks follow from the rows' keys alone
// (models/dropout.h).
class Transformer : public Model {
 public:
  // embedding.weight [vocab, width], position.weight [max_length, width], for each layer, beginning with layer.I.:
  // attention_norm, attention.qkv [3 width, width] (queries, keys, values; head after head within each),
  // attention.output [width, width], feed_forward_norm, feed_forward.inner [feed_forward, width], feed_forward.outer
  // [width, feed_forward]; then norm and head [classes, width]; each of these with .weight and .bias. With task
  // masked_lm transform [width, width] and transform_norm come before the head, of which there is head.bias alone.
  // INVALID_ARGUMENT names the key of `shape` that does not fit.
  static absl::StatusOr<ParameterSpecs> Parameters(const ModelShape& shape);

  // `parameters`: drawn as Parameters says.
  Transformer(const ModelShape& shape, checkpoint::NamedTensors parameters);

  Outputs Forward(const TokenBatch& batch) const override;
  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  Takes takes() const override { return Takes::kTokens; }
  bool judges_tokens() const override { return JudgesTokens(task_); }
  const std::map<std::string, int64_t>& feature_widths() const override { return feature_widths_; }
  Head head() const override;
  // On a CPU products are oneDNN's from then on (models/packed_linear.h).
  void Freeze() override;

 private:
  class Pass;

  void MoveRest(at::Device /*device*/) override { packed_.clear(); }

  const v1::Task task_;
  const int64_t heads_;
  const int64_t layers_;
  const double dropout_;
  const checkpoint::NamedTensors parameters_;
  // Of the parameters that are the weights of linear layers but the head's, at their places; empty unless frozen.
  std::vector<at::Tensor> packed_;
  std::map<std::string, int64_t> feature_widths_;
};

// Inner width of the feed-forward: 4 * width unless the key says otherwise.
int64_t FeedForwardWidth(const v1::Model& spec);

}  // namespace polystill::models
