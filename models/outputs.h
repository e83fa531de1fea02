#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "polystill/v1/run.pb.h"
#include "polystill/v1/teacher.pb.h"

// What models give, by name. Without ATen, for those who only carry it.

namespace polystill::models {

// Outputs by name: the logits, and features (Feature in proto/polystill/v1/teacher.proto).
inline constexpr char kLogits[] = "logits";
inline constexpr char kEmbedding[] = "embedding";
inline constexpr char kHiddenPrefix[] = "hidden.";

inline std::string HiddenName(int64_t layer) { return kHiddenPrefix + std::to_string(layer); }

// Whether a feature has a row for each token, and not for each record.
inline bool IsOfTokens(std::string_view feature) { return feature.starts_with(kHiddenPrefix); }

// Whether the logits of a task are those of tokens.
inline bool JudgesTokens(v1::Task task) { return task == v1::TASK_TOKEN_CLASSIFICATION || task == v1::TASK_MASKED_LM; }

// Whether each logit of a task has a sigmoid of its own, and not all of them a softmax together.
inline bool HasSigmoids(v1::Task task) { return task == v1::TASK_BINARY || task == v1::TASK_MULTI_LABEL; }

// How many logits a row or token has: one a label, one in all with task binary, one a token id with masked_lm.
inline int64_t LogitCount(v1::Task task, int64_t labels, int64_t vocab_size) {
  if (task == v1::TASK_MASKED_LM) return vocab_size;
  return task == v1::TASK_BINARY ? 1 : labels;
}

// Whether a model of this signature gives logits, and not features alone: a classifier without classes does not.
inline bool GivesLogits(const v1::Signature& signature) {
  const bool classifies = signature.task() == v1::TASK_UNSPECIFIED || signature.task() == v1::TASK_CLASSIFICATION;
  return !classifies || !signature.labels().empty();
}

// Whether an output may be called so.
inline bool IsOutputName(std::string_view name) {
  if (name == kLogits || name == kEmbedding) return true;
  constexpr size_t kPrefix = sizeof(kHiddenPrefix) - 1;
  return name.starts_with(kHiddenPrefix) && name.size() > kPrefix && name.size() < kPrefix + 10 &&
         name.find_first_not_of("0123456789", kPrefix) == std::string_view::npos;
}

}  // namespace polystill::models
