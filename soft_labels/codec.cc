#include "soft_labels/codec.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::soft_labels {
namespace {

absl::Status CheckRange(const char* field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("spec.", field, " is ", value, "; write ", least, " to ", most));
}

// A setting that the codec does not read would say something else than what comes back.
absl::Status CheckUnset(const char* field, bool set, v1::Codec codec) {
  if (!set) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("spec.", field, " is set, but ", CodecName(codec), " does not depend on it; leave it out"));
}

}  // namespace

CodecSettings SettingsOf(const v1::Loss& loss) {
  CodecSettings settings(loss.codec());
  if (HasTemperature(loss.codec())) settings.temperature = loss.temperature();
  if (loss.codec() == v1::CODEC_TOP_K) settings.k = loss.k();
  if (loss.codec() == v1::CODEC_SAMPLED) {
    settings.draws = loss.draws_per_token();
    settings.draws_anew = loss.draws() == v1::Loss::DRAWS_PER_EPOCH;
  }
  return settings;
}

CodecSettings SettingsOf(const v1::LabelSpec& spec, bool draws_anew) {
  CodecSettings settings(spec.codec());
  settings.temperature = spec.temperature();
  settings.k = spec.k();
  settings.draws = spec.draws();
  settings.draws_anew = draws_anew;
  return settings;
}

v1::LabelSpec SpecOf(const CodecSettings& settings, uint64_t seed) {
  v1::LabelSpec spec;
  spec.set_codec(settings.codec);
  spec.set_temperature(settings.temperature);
  spec.set_k(settings.k);
  spec.set_draws(settings.draws);
  if (settings.codec == v1::CODEC_SAMPLED) spec.set_seed(seed);
  return spec;
}

bool IsDense(v1::Codec codec) { return codec >= v1::CODEC_DENSE_FP32 && codec <= v1::CODEC_DENSE_INT8; }

bool HasTemperature(v1::Codec codec) {
  return codec == v1::CODEC_TOP_K || codec == v1::CODEC_SAMPLED || codec == v1::CODEC_SCORES;
}

std::string CodecName(v1::Codec codec) {
  const auto* value = v1::Codec_descriptor()->FindValueByNumber(codec);
  return value == nullptr ? absl::StrCat("codec ", static_cast<int>(codec)) : EnumName(value);
}

std::vector<v1::Codec> CodecsThatServe(v1::LossKind kind) {
  std::vector<v1::Codec> codecs = {v1::CODEC_DENSE_FP32, v1::CODEC_DENSE_FP16, v1::CODEC_DENSE_BF16,
                                   v1::CODEC_DENSE_INT8};
  const auto add = [&](std::initializer_list<v1::Codec> more) { codecs.insert(codecs.end(), more); };
  switch (kind) {
    case v1::LOSS_KIND_SOFT_LABEL:
      add({v1::CODEC_HIDDEN_HEAD, v1::CODEC_TOP_K, v1::CODEC_SAMPLED});
      break;
    case v1::LOSS_KIND_HARD_LABEL:
      add({v1::CODEC_HIDDEN_HEAD, v1::CODEC_CLASSES});
      break;
    case v1::LOSS_KIND_LOGIT_MSE:
      add({v1::CODEC_HIDDEN_HEAD});
      break;
    default:
      break;
  }
  return codecs;
}

absl::Status CheckServes(const v1::Loss& loss) {
  if (loss.kind() == v1::LOSS_KIND_TASK) return absl::OkStatus();
  const std::vector<v1::Codec> codecs = CodecsThatServe(loss.kind());
  if (std::find(codecs.begin(), codecs.end(), loss.codec()) != codecs.end()) return absl::OkStatus();
  const std::string names =
      absl::StrJoin(codecs, ", ", [](std::string* out, v1::Codec codec) { absl::StrAppend(out, CodecName(codec)); });
  return absl::InvalidArgumentError(absl::StrCat(CodecName(loss.codec()), " does not carry what ",
                                                 EnumName(v1::LossKind_descriptor()->FindValueByNumber(loss.kind())),
                                                 " needs; write one of ", names));
}

absl::Status CheckCodec(const v1::LabelSpec& spec, int64_t logits) {
  const v1::Codec codec = spec.codec() == v1::CODEC_UNSPECIFIED ? v1::CODEC_DENSE_FP32 : spec.codec();
  if (codec < v1::CODEC_DENSE_FP32 || codec > v1::CODEC_CLASSES) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spec.codec ", static_cast<int>(codec), " is not known; known are those of soft_labels/FORMAT.md, ",
        CodecName(v1::CODEC_DENSE_FP32), " to ", CodecName(v1::CODEC_CLASSES)));
  }
  if (!IsDense(codec) && logits > kMaxVocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("spec.codec ", CodecName(codec), " holds rows of at most ",
                                                   kMaxVocabulary, " logits, these have ", logits,
                                                   "; ask for a dense codec"));
  }
  if (!HasTemperature(codec)) {
    RETURN_IF_ERROR(CheckUnset("temperature", spec.temperature() != 0, codec));
  } else if (!(spec.temperature() >= 0 && std::isfinite(spec.temperature()))) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.temperature is ", spec.temperature(), "; write a number above 0, or none for 1"));
  }
  if (codec != v1::CODEC_TOP_K) {
    RETURN_IF_ERROR(CheckUnset("k", spec.k() != 0, codec));
  } else {
    RETURN_IF_ERROR(CheckRange("k", spec.k(), 1, logits > 0 ? logits : kMaxVocabulary));
  }
  if (codec == v1::CODEC_SAMPLED) return CheckRange("draws", spec.draws(), 1, kMaxDraws);
  RETURN_IF_ERROR(CheckUnset("draws", spec.draws() != 0, codec));
  return CheckUnset("seed", spec.seed() != 0, codec);
}

}  // namespace polystill::soft_labels
