#include "soft_labels/plain.h"

#include <cmath>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill::soft_labels {
namespace {

absl::Status CheckBytes(const v1::SoftLabels& labels, v1::Codec codec, int64_t bytes) {
  if (labels.codec() == codec && static_cast<int64_t>(labels.packed().size()) == bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expected ", bytes, " bytes of ", v1::Codec_Name(codec), ", got ",
                                                 labels.packed().size(), " of ", v1::Codec_Name(labels.codec())));
}

// Of no rows there is nowhere to copy to.
void CopyInto(const std::string& packed, void* numbers) {
  if (!packed.empty()) std::memcpy(numbers, packed.data(), packed.size());
}

absl::Status CheckScores(const Array& scores, const RowName& row_name) {
  for (size_t row = 0; row + 1 < scores.offsets.size(); ++row) {
    for (int64_t i = scores.offsets[row]; i < scores.offsets[row + 1]; ++i) {
      if (scores.numbers[i] <= 0 && std::isfinite(scores.numbers[i])) continue;
      return absl::InvalidArgumentError(absl::StrCat(NameOf(static_cast<int64_t>(row), row_name), ": score ",
                                                     i - scores.offsets[row], " is ", scores.numbers[i],
                                                     ", no logarithm of a probability"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckClasses(const Array& classes, int64_t vocabulary, const RowName& row_name) {
  for (size_t row = 0; row < classes.ids.size(); ++row) {
    if (classes.ids[row] >= 0 && classes.ids[row] < vocabulary) continue;
    return absl::InvalidArgumentError(absl::StrCat(NameOf(static_cast<int64_t>(row), row_name), ": class ",
                                                   classes.ids[row], " is not below ", vocabulary));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::SoftLabels> EncodeScores(const Array& scores, const RowName& row_name) {
  RETURN_IF_ERROR(CheckScores(scores, row_name));
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_SCORES);
  labels.set_packed(scores.numbers.data(), scores.numbers.size() * kScoreBytes);
  return labels;
}

absl::StatusOr<Array> DecodeScores(const v1::SoftLabels& labels, const std::vector<int64_t>& numbers_of_rows,
                                   const RowName& row_name) {
  Array scores;
  scores.offsets.push_back(0);
  for (const int64_t numbers : numbers_of_rows) scores.offsets.push_back(scores.offsets.back() + numbers);
  RETURN_IF_ERROR(CheckBytes(labels, v1::CODEC_SCORES, scores.offsets.back() * kScoreBytes));
  scores.numbers.resize(scores.offsets.back());
  CopyInto(labels.packed(), scores.numbers.data());
  RETURN_IF_ERROR(CheckScores(scores, row_name));
  return scores;
}

absl::StatusOr<v1::SoftLabels> EncodeClasses(const Array& classes, int64_t vocabulary, const RowName& row_name) {
  RETURN_IF_ERROR(CheckClasses(classes, vocabulary, row_name));
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_CLASSES);
  labels.set_packed(classes.ids.data(), classes.ids.size() * kClassBytes);
  return labels;
}

absl::StatusOr<Array> DecodeClasses(const v1::SoftLabels& labels, int64_t rows, int64_t vocabulary,
                                    const RowName& row_name) {
  RETURN_IF_ERROR(CheckBytes(labels, v1::CODEC_CLASSES, rows * kClassBytes));
  Array classes;
  classes.ids.resize(rows);
  CopyInto(labels.packed(), classes.ids.data());
  RETURN_IF_ERROR(CheckClasses(classes, vocabulary, row_name));
  return classes;
}

}  // namespace polystill::soft_labels
