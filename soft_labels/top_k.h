#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"
#include "soft_labels/array.h"

namespace polystill::soft_labels {

// The k likeliest ids of a row with log p, p = softmax(logits / T), and the log of what the others share
// (soft_labels/array.h says where in the Array). log p is rounded to fp16, nearest even: p is off by at most 2^-11 |log
// p| relative, 1.8e-4 absolute. The tail is fp32, and minus infinity exactly when k is the whole vocabulary. The bytes
// are described in FORMAT.md.

// Bytes of a row, exactly: the ids take as many bits each as the largest id.
int64_t TopKRowBytes(int64_t k, int64_t vocabulary);

// INVALID_ARGUMENT, naming the row: ids that are not ascending or beyond the vocabulary, a log p that is no logarithm
// of a probability.
absl::StatusOr<v1::SoftLabels> EncodeTopK(const Array& top, int64_t rows, int64_t k, int64_t vocabulary,
                                          const RowName& row_name = {});

// The same errors, and for any other number of bytes than the exact one.
absl::StatusOr<Array> DecodeTopK(const v1::SoftLabels& labels, int64_t rows, int64_t k, int64_t vocabulary,
                                 const RowName& row_name = {});

}  // namespace polystill::soft_labels
