#pragma once

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "models/init.h"
#include "models/model.h"

namespace polystill::models {

// Encoder with the norms before the sublayers (Xiong et al. 2020, arXiv:2002.04745) and learned positions:
//
//   ids, padded to [rows, length] --embedding + position--> x [rows, length, width]
//   x += linear(attention(layer norm(x))); x += linear(GELU(linear(layer norm(x))))     `layers` times
//   layer norm --mean over the row's tokens--> [rows, width] --linear--> logits
//
// Padding is not attended to, and a row without tokens has the mean 0. In training (TokenBatch::row_keys) dropout falls
// on x after the embedding and on what each sublayer adds; its masks follow from the rows' keys alone
// (models/dropout.h).
class Transformer : public Model {
 public:
  // embedding.weight [vocab, width], position.weight [max_length, width], for each layer, beginning with layer.I.:
  // attention_norm, attention.qkv [3 width, width] (queries, keys, values; head after head within each),
  // attention.output [width, width], feed_forward_norm, feed_forward.inner [feed_forward, width], feed_forward.outer
  // [width, feed_forward]; then norm and head [classes, width]; each of these with .weight and .bias.
  // INVALID_ARGUMENT names the key of `shape` that does not fit.
  static absl::StatusOr<ParameterSpecs> Parameters(const ModelShape& shape);

  // `parameters`: drawn as Parameters says.
  Transformer(const ModelShape& shape, checkpoint::NamedTensors parameters);

  at::Tensor Forward(const TokenBatch& batch) const override;
  checkpoint::NamedTensors NamedParameters() const override { return parameters_; }
  bool pads_to_length() const override { return true; }

 private:
  class Pass;

  const int64_t heads_;
  const int64_t layers_;
  const double dropout_;
  const checkpoint::NamedTensors parameters_;
};

// Inner width of the feed-forward: 4 * width unless the key says otherwise.
int64_t FeedForwardWidth(const v1::Model& spec);

}  // namespace polystill::models
