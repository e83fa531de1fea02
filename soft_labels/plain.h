#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"
#include "soft_labels/array.h"

namespace polystill::soft_labels {

// Codecs that write their numbers as they are; the bytes are described in FORMAT.md. Errors are INVALID_ARGUMENT and
// name the row.

// scores: log p, p = softmax(logits / T), at ids that the caller named, in its order; fp32, not rounded further.
// `numbers_of_rows`: how many ids each row has.
inline constexpr int64_t kScoreBytes = 4;
absl::StatusOr<v1::SoftLabels> EncodeScores(const Array& scores, const RowName& row_name = {});
absl::StatusOr<Array> DecodeScores(const v1::SoftLabels& labels, const std::vector<int64_t>& numbers_of_rows,
                                   const RowName& row_name = {});

// classes: the arg-max of each row, the lowest of equals.
inline constexpr int64_t kClassBytes = 4;
absl::StatusOr<v1::SoftLabels> EncodeClasses(const Array& classes, int64_t vocabulary, const RowName& row_name = {});
absl::StatusOr<Array> DecodeClasses(const v1::SoftLabels& labels, int64_t rows, int64_t vocabulary,
                                    const RowName& row_name = {});

}  // namespace polystill::soft_labels
