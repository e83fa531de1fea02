#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/run.pb.h"
#include "polystill/v1/soft_label.pb.h"

namespace polystill::soft_labels {

// Largest vocabulary that the codecs hold.
inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
// Most draws a row.
inline constexpr int32_t kMaxDraws = 65'536;

// A codec and what its labels depend on beside the teacher; what they do not depend on is 0, so that equal settings
// are equal labels.
struct CodecSettings {
  v1::Codec codec = v1::CODEC_UNSPECIFIED;
  // T of p = softmax(logits / T): top_k, sampled, scores.
  double temperature = 0;
  int32_t k = 0;            // top_k
  int32_t draws = 0;        // sampled: draws a row
  bool draws_anew = false;  // sampled: other draws in every pass

  CodecSettings(v1::Codec codec = v1::CODEC_UNSPECIFIED) : codec(codec) {}  // NOLINT: a dense codec has no settings
  auto operator<=>(const CodecSettings&) const = default;
};

// What a loss of a run file asks for.
CodecSettings SettingsOf(const v1::Loss& loss);
// What a spec asks for, which does not say whether later passes draw anew.
CodecSettings SettingsOf(const v1::LabelSpec& spec, bool draws_anew);

// The spec that asks for it; its outputs and teacher are left to the caller.
v1::LabelSpec SpecOf(const CodecSettings& settings, uint64_t seed);

// dense_fp32, dense_fp16, dense_bf16, dense_int8: every number of a row, of logits or of a feature.
bool IsDense(v1::Codec codec);

// Whether its labels depend on T.
bool HasTemperature(v1::Codec codec);

// As in run files, e.g. "top_k"; "codec 77" when there is none such.
std::string CodecName(v1::Codec codec);

// The codecs that carry what a loss needs. What each is good for:
//
//   dense_*      every loss; the only ones of features, and of labels that hold or not each by itself (sigmoids)
//   hidden_head  every loss on a softmax, up to the rounding of what the head reads to fp16
//   top_k        soft_label, with all ids beyond the k as one; an approximation of the KL
//   sampled      soft_label; value and gradient have the right expectation
//   classes      hard_label
//   scores       no loss of a run file yet: for callers that estimate a KL at ids of their own
std::vector<v1::Codec> CodecsThatServe(v1::LossKind kind);

// OK when the loss's codec serves its kind, or it reads no labels; else what to write. The message begins with the
// codec's name.
absl::Status CheckServes(const v1::Loss& loss);

// Whether a spec's settings make sense with `logits` logits a row; 0: not known. INVALID_ARGUMENT names the field.
absl::Status CheckCodec(const v1::LabelSpec& spec, int64_t logits);

}  // namespace polystill::soft_labels
