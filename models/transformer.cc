#include "models/transformer.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "models/dropout.h"
#include "models/packed_linear.h"
#include "models/ragged.h"
#include "models/row_groups.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

constexpr double kNormEps = 1e-5;

}  // namespace

int64_t FeedForwardWidth(const v1::Model& spec) {
  return spec.feed_forward() > 0 ? spec.feed_forward() : int64_t{4} * spec.width();
}

absl::StatusOr<ParameterSpecs> Transformer::Parameters(const ModelShape& shape) {
  const v1::Model& spec = shape.spec;
  RETURN_IF_ERROR(CheckRange("model.layers", spec.layers(), 1, 256));
  RETURN_IF_ERROR(CheckRange("model.heads", spec.heads(), 1, 1024));
  RETURN_IF_ERROR(CheckRange("model.feed_forward", spec.feed_forward(), 0, 1 << 20));
  RETURN_IF_ERROR(CheckRange("max_length", shape.max_length, 1, 65536));
  if (!(spec.dropout() >= 0 && spec.dropout() <= 0.9)) {
    return absl::InvalidArgumentError(absl::StrCat("model.dropout: is ", spec.dropout(), ", must be 0 to 0.9"));
  }
  const int64_t width = spec.width();
  if (width % spec.heads() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("model.width: is ", width, ", must be a multiple of model.heads, ", spec.heads()));
  }
  ParameterSpecs specs;
  AddEmbedding("embedding", shape.vocab_size, width, &specs);
  AddEmbedding("position", shape.max_length, width, &specs);
  for (int i = 0; i < spec.layers(); ++i) {
    const std::string layer = absl::StrCat("layer.", i, ".");
    AddLayerNorm(layer + "attention_norm", width, &specs);
    AddLinear(layer + "attention.qkv", 3 * width, width, &specs);
    AddLinear(layer + "attention.output", width, width, &specs);
    AddLayerNorm(layer + "feed_forward_norm", width, &specs);
    AddLinear(layer + "feed_forward.inner", FeedForwardWidth(spec), width, &specs);
    AddLinear(layer + "feed_forward.outer", width, FeedForwardWidth(spec), &specs);
  }
  AddLayerNorm("norm", width, &specs);
  if (shape.task == v1::TASK_MASKED_LM) {
    AddLinear("transform", width, width, &specs);
    AddLayerNorm("transform_norm", width, &specs);
    specs.push_back({"head.bias", {shape.classes}, 0, 0});
  } else {
    AddLinear("head", shape.classes, width, &specs);
  }
  return specs;
}

Transformer::Transformer(const ModelShape& shape, checkpoint::NamedTensors parameters)
    : task_(shape.task),
      heads_(shape.spec.heads()),
      layers_(shape.spec.layers()),
      dropout_(shape.spec.dropout()),
      parameters_(std::move(parameters)) {
  feature_widths_[kEmbedding] = shape.spec.width();
  for (int64_t layer = 0; layer <= layers_; ++layer) feature_widths_[HiddenName(layer)] = shape.spec.width();
}

// One forward: takes the parameters in their order.
class Transformer::Pass {
 public:
  Pass(const Transformer& model, const TokenBatch& batch)
      : model_(model), batch_(batch), rows_(CheckedOffsets(model, batch), model.device()) {}

  Outputs Run() {
    for (const std::string& name : batch_.features) {
      TORCH_CHECK(model_.feature_widths_.contains(name), "a transformer of ", model_.layers_,
                  " layers has no feature '", name, "'");
    }
    at::Tensor x = Dropout(Embed());
    Keep(HiddenName(0), x);
    for (int64_t layer = 0; layer < model_.layers_; ++layer) {
      x = x + Dropout(Attention(LayerNorm(x)));
      x = x + Dropout(FeedForward(LayerNorm(x)));
      if (layer + 1 < model_.layers_) Keep(HiddenName(layer + 1), x);
    }
    x = LayerNorm(x);
    Keep(HiddenName(model_.layers_), x);
    const at::Tensor mean = rows_.Mean(x);
    if (Wants(kEmbedding)) outputs_.features[kEmbedding] = mean;
    outputs_.logits = model_.judges_tokens() ? JudgeTokens(x) : Logits(mean);
    return std::move(outputs_);
  }

 private:
  static std::vector<int64_t> CheckedOffsets(const Transformer& model, const TokenBatch& batch) {
    const int64_t longest = batch.offsets.diff().max().item<int64_t>(), most = model.parameters_[1].second.size(0);
    TORCH_CHECK(longest <= most, "a row has ", longest, " ids, max_length is ", most);
    const auto* const first = batch.offsets.const_data_ptr<int64_t>();
    return {first, first + batch.offsets.size(0)};
  }

  // On the model's device.
  at::Tensor There(const at::Tensor& host) const { return cuda::ToDevice(host, model_.device()); }

  const at::Tensor& Next() { return model_.parameters_[next_++].second; }

  bool Wants(const std::string& feature) const {
    return std::find(batch_.features.begin(), batch_.features.end(), feature) != batch_.features.end();
  }

  void Keep(const std::string& name, const at::Tensor& x) {
    if (Wants(name)) outputs_.features[name] = x;
  }

  // [tokens, width] -> [positions, classes].
  at::Tensor JudgeTokens(const at::Tensor& x) {
    const at::Tensor tokens = batch_.positions.defined() ? x.index_select(0, There(batch_.positions)) : x;
    const bool training = !batch_.row_keys.empty();
    if (training || tokens.size(0) == 0) return JudgeAlike(tokens);
    // Products of a fixed shape, since the number of positions depends on the other rows.
    const size_t head = next_;
    std::vector<at::Tensor> logits;
    for (int64_t first = 0; first < tokens.size(0); first += kPositionsPerProduct) {
      const int64_t count = std::min(kPositionsPerProduct, tokens.size(0) - first);
      const at::Tensor some = tokens.narrow(0, first, count);
      next_ = head;
      logits.push_back(
          JudgeAlike(at::constant_pad_nd(some, {0, 0, 0, kPositionsPerProduct - count})).narrow(0, 0, count));
    }
    return at::cat(logits);
  }

  at::Tensor JudgeAlike(const at::Tensor& tokens) {
    if (model_.task_ != v1::TASK_MASKED_LM) return Logits(tokens);
    return Logits(LayerNorm(Linear(tokens, Activation::kGelu)));
  }

  // What the head makes of it, or what it would read.
  at::Tensor Logits(const at::Tensor& x) const {
    if (batch_.head_input) return x;
    const models::Head head = model_.head();
    return at::linear(x, head.weight, head.bias);
  }

  at::Tensor Embed() {
    const at::Tensor tokens = at::embedding(Next(), There(batch_.ids));
    return tokens + at::embedding(Next(), There(rows_.Places(batch_.ids.size(0))));
  }

  at::Tensor LayerNorm(const at::Tensor& x) {
    const at::Tensor& weight = Next();
    return at::layer_norm(x, {x.size(-1)}, weight, Next(), kNormEps);
  }

  at::Tensor Linear(const at::Tensor& x, Activation activation = Activation::kNone) {
    const size_t place = next_;
    const at::Tensor& weight = Next();
    const at::Tensor& bias = Next();
    if (packed_) return PackedLinear(x, model_.packed_[place], bias, activation);
    const at::Tensor product = at::linear(x, weight, bias);
    return activation == Activation::kGelu ? at::gelu(product) : product;
  }

  at::Tensor Attention(const at::Tensor& x) {
    const int64_t heads = model_.heads_;
    return Linear(rows_.Attention(Linear(x).view({x.size(0), 3, heads, x.size(1) / heads})));
  }

  at::Tensor FeedForward(const at::Tensor& x) {
    const at::Tensor inner = Linear(x, Activation::kGelu);
    return Linear(inner);
  }

  // Each call is a site of its own.
  at::Tensor Dropout(const at::Tensor& x) {
    const uint64_t site = site_++;
    if (batch_.row_keys.empty() || model_.dropout_ == 0) return x;
    return x * There(DropoutMask(batch_.row_keys, rows_.offsets(), x.size(1), model_.dropout_, site,
                                 model_.parameters_[0].second.scalar_type()));
  }

  const Transformer& model_;
  const TokenBatch& batch_;
  const RaggedRows rows_;
  const bool packed_ = !model_.packed_.empty() && !at::GradMode::is_enabled();
  size_t next_ = 0;
  uint64_t site_ = 0;
  Outputs outputs_;
};

Head Transformer::head() const {
  // The last two, or the embedding's rows and the last one.
  const size_t bias = parameters_.size() - 1;
  const size_t weight = task_ == v1::TASK_MASKED_LM ? 0 : bias - 1;
  return {parameters_[weight].second, parameters_[bias].second};
}

void Transformer::Freeze() {
  std::vector<at::Tensor> packed(parameters_.size());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor& parameter = parameters_[i].second;
    const bool reads_layers = parameter.dim() == 2 && !parameters_[i].first.starts_with("embedding.") &&
                              !parameters_[i].first.starts_with("position.") &&
                              !parameters_[i].first.starts_with("head.");
    if (!reads_layers) continue;
    packed[i] = PackWeight(parameter, TokensPerForward(1, at::kCPU));
    if (!packed[i].defined()) return;
  }
  packed_ = std::move(packed);
}

Outputs Transformer::Forward(const TokenBatch& batch) const { return Pass(*this, batch).Run(); }

}  // namespace polystill::models
