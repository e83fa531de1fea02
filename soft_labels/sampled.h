#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"
#include "soft_labels/array.h"

namespace polystill::soft_labels {

// What `draws` draws from p = softmax(logits / T) gave: the ids that came up, ascending, how often each did, and the
// entropy of p, so that a loss can report a KL divergence (soft_labels/array.h says where in the Array). Nothing is
// rounded but the entropy, to fp32. The bytes are described in FORMAT.md: distances of ids by a Rice code, counts by an
// exp-Golomb code, each with the parameter that makes the row shortest.

// Bytes of a row, exactly. `counts`: of each of `ids`.
int64_t SampledRowBytes(std::span<const int32_t> ids, std::span<const int32_t> counts);

// No row of so many draws has more.
int64_t MostSampledRowBytes(int32_t draws, int64_t vocabulary);

// INVALID_ARGUMENT, naming the row: ids that are not ascending or beyond the vocabulary, counts below 1 or whose sum is
// not `draws`, an entropy that is not finite or below 0.
absl::StatusOr<v1::SoftLabels> EncodeSampled(const Array& drawn, int64_t rows, int32_t draws, int64_t vocabulary,
                                             const RowName& row_name = {});

// The same errors, and for rows that do not end where SoftLabels.row_bytes says. Memory follows from the bytes that
// are there, not from what they say.
absl::StatusOr<Array> DecodeSampled(const v1::SoftLabels& labels, int64_t rows, int32_t draws, int64_t vocabulary,
                                    const RowName& row_name = {});

}  // namespace polystill::soft_labels
