#include "models/padded_model.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

// OK when `given` is finite floating [rows, numbers], or [rows, length, numbers] of tokens; any number when it is 0.
absl::Status CheckOutput(const std::string& name, const at::Tensor& given, bool of_tokens, const PaddedBatch& padded,
                         int64_t numbers) {
  std::vector<int64_t> expected = padded.ids.sizes().slice(0, of_tokens ? 2 : 1).vec();
  expected.push_back(numbers > 0 ? numbers : given.dim() > 0 ? given.size(-1) : 1);
  if (given.sizes() != at::IntArrayRef(expected) || !given.is_floating_point()) {
    return absl::InvalidArgumentError(
        absl::StrCat("forward must give ", name, " of floating numbers [rows, ", of_tokens ? "length, " : "",
                     numbers > 0 ? absl::StrCat(numbers, "], a number for each class") : "width]", "; it gave ",
                     c10::str(given.sizes(), " ", given.scalar_type(), " for ids ", padded.ids.sizes())));
  }
  if (at::isfinite(given).all().item<bool>()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("forward gives ", name, " not finite"));
}

}  // namespace

PaddedModel::PaddedModel(const ModelShape& shape)
    : max_length_(shape.max_length), classes_(shape.classes), judges_tokens_(JudgesTokens(shape.task)) {}

Outputs PaddedModel::Forward(const TokenBatch& batch) const {
  TORCH_CHECK(!batch.head_input, "the model does not show what makes its logits");
  const PaddedBatch padded = PadToBucket(batch, max_length_);
  const Answer answer = Run(batch, padded);
  Outputs outputs;
  outputs.logits = answer.logits;
  if (judges_tokens_) {
    outputs.logits = TokensOf(outputs.logits, padded);
    if (batch.positions.defined()) {
      outputs.logits = outputs.logits.index_select(0, cuda::ToDevice(batch.positions, outputs.logits.device()));
    }
  }
  for (const std::string& name : batch.features) {
    TORCH_CHECK(answer.features.contains(name), "the model gives no feature '", name, "'");
    const at::Tensor& feature = answer.features.at(name);
    outputs.features[name] = IsOfTokens(name) ? TokensOf(feature, padded) : feature;
  }
  return outputs;
}

absl::Status PaddedModel::Check(const Answer& answer, const PaddedBatch& padded) const {
  if (classes_ > 0) {
    if (!answer.logits.defined()) {
      return absl::InvalidArgumentError("forward gives no logits; leave the classes out of a model of features alone");
    }
    RETURN_IF_ERROR(CheckOutput(kLogits, answer.logits, judges_tokens_, padded, classes_));
  } else if (answer.logits.defined()) {
    return absl::InvalidArgumentError("forward gives logits, but signature.labels is empty; list their classes");
  } else if (answer.features.empty()) {
    return absl::InvalidArgumentError("forward gives neither logits nor features");
  }
  for (const auto& [name, feature] : answer.features) {
    if (!IsOutputName(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("forward gives '", name, "'; beside logits it may give embedding and hidden.0, hidden.1 ..."));
    }
    RETURN_IF_ERROR(CheckOutput(name, feature, IsOfTokens(name), padded, 0));
  }
  return absl::OkStatus();
}

absl::Status PaddedModel::Try(const Rows& rows) {
  const TokenBatch batch = MakeBatch(rows);
  const PaddedBatch padded = PadToBucket(batch, max_length_);
  const Answer answer = Run(batch, padded);
  RETURN_IF_ERROR(Check(answer, padded));
  feature_widths_.clear();
  for (const auto& [name, feature] : answer.features) feature_widths_[name] = feature.size(-1);
  return absl::OkStatus();
}

}  // namespace polystill::models
