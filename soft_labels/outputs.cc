#include "soft_labels/outputs.h"

#include <algorithm>

#include "absl/strings/str_join.h"
#include "models/outputs.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "soft_labels/codec.h"

namespace polystill::soft_labels {
namespace {

absl::StatusOr<Output> OutputOf(const std::string& name, const v1::DescribeReply& teacher) {
  const v1::Signature& signature = teacher.signature();
  if (name == kLogits && models::GivesLogits(signature)) {
    return Output{name, models::LogitCount(signature.task(), signature.labels_size(), signature.vocab_size()),
                  models::JudgesTokens(signature.task()), teacher.head().width()};
  }
  std::vector<std::string> known;
  if (models::GivesLogits(signature)) known.push_back(absl::StrCat("'", kLogits, "'"));
  for (const v1::Feature& feature : teacher.features()) {
    if (feature.name() == name) return Output{name, feature.width(), models::IsOfTokens(name)};
    known.push_back(absl::StrCat("'", feature.name(), "'"));
  }
  if (name == kLogits) {
    return absl::InvalidArgumentError(
        absl::StrCat("this teacher gives no logits, but features alone: ", absl::StrJoin(known, ", "),
                     "; name them in spec.outputs, or learn from them by losses of kind embedding or hidden"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("spec.outputs '", Excerpt(name), "' is not known; this teacher gives ", absl::StrJoin(known, ", ")));
}

}  // namespace

std::vector<std::string> TeacherOutputsOf(const v1::Loss& loss) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_TASK:
      return {};
    case v1::LOSS_KIND_EMBEDDING:
      return {models::kEmbedding};
    case v1::LOSS_KIND_HIDDEN: {
      std::vector<std::string> names;
      for (const v1::Loss::Layers& pair : loss.layers()) {
        const std::string name = models::HiddenName(pair.teacher());
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
      }
      return names;
    }
    default:
      return {kLogits};
  }
}

absl::StatusOr<Outputs> OutputsOf(const v1::LabelSpec& spec, const v1::DescribeReply& teacher) {
  Outputs outputs;
  for (const std::string& name : spec.outputs()) {
    ASSIGN_OR_RETURN(const Output output, OutputOf(name, teacher));
    const bool twice =
        std::any_of(outputs.begin(), outputs.end(), [&](const Output& other) { return other.name == name; });
    if (twice) return absl::InvalidArgumentError(absl::StrCat("spec.outputs names '", name, "' twice"));
    outputs.push_back(output);
  }
  if (!outputs.empty()) return outputs;
  ASSIGN_OR_RETURN(const Output logits, OutputOf(kLogits, teacher));
  return Outputs{logits};
}

absl::Status CheckSpec(const v1::LabelSpec& spec, const Outputs& outputs, v1::Task task) {
  int64_t logits = 0, head_width = 0;
  for (const Output& output : outputs) {
    if (output.name == kLogits) {
      logits = output.width;
      head_width = output.head_width;
    } else if (!IsDense(spec.codec()) && spec.codec() != v1::CODEC_UNSPECIFIED) {
      return absl::InvalidArgumentError(absl::StrCat("spec.codec ", CodecName(spec.codec()), " is of logits, but '",
                                                     output.name, "' is a feature; ask for it by a dense codec"));
    }
  }
  RETURN_IF_ERROR(CheckCodec(spec, logits));
  if (spec.codec() == v1::CODEC_HIDDEN_HEAD && head_width == 0) {
    return absl::InvalidArgumentError(
        "spec.codec hidden_head needs a teacher whose logits are a linear layer's that it gives away (native models); "
        "ask for a dense codec");
  }
  if (models::HasSigmoids(task) && !IsDense(spec.codec()) && spec.codec() != v1::CODEC_UNSPECIFIED) {
    return absl::InvalidArgumentError(absl::StrCat("spec.codec ", CodecName(spec.codec()),
                                                   " is of a softmax, but each logit of this teacher has a sigmoid of "
                                                   "its own; ask for a dense codec"));
  }
  return absl::OkStatus();
}

int64_t NumbersOf(const Outputs& outputs, const v1::LabelInput& input) {
  int64_t numbers = 0;
  for (const Output& output : outputs) numbers += output.RowsOf(input) * output.width;
  return numbers;
}

absl::Status CheckAnswerBytes(int64_t bytes, int64_t most) {
  if (bytes <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the answer would have ", bytes, " bytes, more than ", most,
                   "; ask for fewer outputs or positions, shorter records, fewer of them at once, or a smaller codec"));
}

}  // namespace polystill::soft_labels
