#include "models/subword_bag.h"

#include "absl/strings/str_cat.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

constexpr int64_t kMean = 1;  // of at::embedding_bag's modes
constexpr double kNormEps = 1e-5;
// Parameters before those of the hidden layers: embedding.weight, norm.weight, norm.bias.
constexpr size_t kFirstLinear = 3;

}  // namespace

absl::StatusOr<ParameterSpecs> SubwordBag::Parameters(const ModelShape& shape) {
  RETURN_IF_ERROR(CheckRange("model.hidden_layers", shape.spec.hidden_layers(), 0, 64));
  if (JudgesTokens(shape.task)) {
    return absl::InvalidArgumentError("model.kind: subword_bag judges whole texts, not their tokens; take transformer");
  }
  const int64_t width = shape.spec.width();
  ParameterSpecs specs;
  AddEmbedding("embedding", shape.vocab_size, width, &specs);
  AddLayerNorm("norm", width, &specs);
  for (int i = 0; i < shape.spec.hidden_layers(); ++i) AddLinear(absl::StrCat("hidden.", i), width, width, &specs);
  AddLinear("head", shape.classes, width, &specs);
  return specs;
}

Outputs SubwordBag::Forward(const TokenBatch& batch) const {
  const auto parameter = [this](size_t index) -> const at::Tensor& { return parameters_[index].second; };
  const at::Tensor& embedding = parameter(0);
  // Rows of gradients, unless there would be more of them than the table has.
  const bool sparse = batch.ids.size(0) < embedding.size(0);
  const auto [mean, unused_bag, unused_sizes, unused_max] =
      at::embedding_bag(embedding, cuda::ToDevice(batch.ids, device()), cuda::ToDevice(batch.offsets, device()),
                        /*scale_grad_by_freq=*/false, kMean, sparse,
                        /*per_sample_weights=*/{}, /*include_last_offset=*/true);
  at::Tensor hidden = at::layer_norm(mean, {embedding.size(1)}, parameter(1), parameter(2), kNormEps);
  size_t next = kFirstLinear;
  for (; next + 2 < parameters_.size(); next += 2) {
    hidden = at::gelu(at::linear(hidden, parameter(next), parameter(next + 1)));
  }
  Outputs outputs;
  outputs.logits = batch.head_input ? hidden : at::linear(hidden, parameter(next), parameter(next + 1));
  for (const std::string& name : batch.features) {
    TORCH_CHECK(name == kEmbedding, "a subword_bag has no feature '", name, "'");
    outputs.features[name] = hidden;
  }
  return outputs;
}

Head SubwordBag::head() const { return {parameters_[parameters_.size() - 2].second, parameters_.back().second}; }

}  // namespace polystill::models
