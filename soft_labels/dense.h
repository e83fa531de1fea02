#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"

namespace polystill::soft_labels {

// The dense codecs: every number of every row, of logits (raw, at temperature 1) or of a feature. fp32 adds no error.
// fp16 rounds to nearest even (relative error at most 2^-11 for magnitudes in [2^-14, 65504]); a finite number beyond
// 65504 is refused. The bytes are described in FORMAT.md.

// Bytes of a number by a codec; 0 when it is not a dense one.
int64_t BytesPerNumber(v1::Codec codec);

// How a row is called in errors, e.g. by its record's id; "row 3" when empty.
using RowName = std::function<std::string(int64_t row)>;

// `numbers`: row-major [rows, width]. INVALID_ARGUMENT when one is not finite or out of the codec's range: the message
// names the row.
absl::StatusOr<v1::SoftLabels> EncodeDense(v1::Codec codec, std::span<const float> numbers, int64_t rows, int64_t width,
                                           const RowName& row_name = {});

// Checks codec, shape [rows, width], byte count and finiteness; the result is row-major [rows, width].
// INVALID_ARGUMENT says what was expected and what came.
absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, int64_t rows, int64_t width,
                                               const RowName& row_name = {});

}  // namespace polystill::soft_labels
