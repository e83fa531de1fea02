#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"
#include "soft_labels/array.h"

namespace polystill::soft_labels {

// The codecs that hold every number of every row: of logits (raw, at temperature 1) or of a feature, and hidden_head,
// of what the teacher's head reads. fp32 adds no error. fp16 (and hidden_head) and bf16 round to nearest even: relative
// error at most 2^-11 for magnitudes in [2^-14, 65504], and 2^-8; a finite number beyond their range is refused. int8
// has a centre and a scale a row: the error is at most half the scale, which is the row's span / 254. The bytes are
// described in FORMAT.md.

// Bytes of a row of `width` numbers; 0 when the codec is another one.
int64_t DenseRowBytes(v1::Codec codec, int64_t width);

// `numbers`: row-major [rows, width]. INVALID_ARGUMENT when one is not finite or out of the codec's range: the message
// names the row.
absl::StatusOr<v1::SoftLabels> EncodeDense(v1::Codec codec, std::span<const float> numbers, int64_t rows, int64_t width,
                                           const RowName& row_name = {});

// Checks codec, shape [rows, width], byte count and finiteness; the result is row-major [rows, width].
// INVALID_ARGUMENT says what was expected and what came.
absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, int64_t rows, int64_t width,
                                               const RowName& row_name = {});

// The same of labels whose bytes (the data of `dense`, or `packed`) lie in `data`, and not in the message. Numbers are
// copied and looked at in one pass.
absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, std::span<const std::string_view> data,
                                               int64_t rows, int64_t width, const RowName& row_name = {});

}  // namespace polystill::soft_labels
