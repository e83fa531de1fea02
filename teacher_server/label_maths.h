#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "soft_labels/array.h"

namespace polystill::teacher_server {

// What the codecs hold of logits z: of p = softmax(z / T), in float64. Computed by ATen on whichever device the logits
// are, a few rows at a time, so that the float64 numbers take some dozens of MiB whatever the vocabulary; only what a
// codec holds comes to the host. On one kind of CPU a row's result has the same bits whatever rows come with it and
// however many threads compute it.
//
// `logits`: [rows, classes], float32, finite; rows may be 0. Throws c10::Error, as ATen does.

// Codec top_k, 1 <= k <= classes. The log of the rest is a log-sum-exp over the ids outside the k: log(1 - sum of the
// k) would lose what is left of a peaked p.
soft_labels::Array TopKOf(const at::Tensor& logits, double temperature, int64_t k);

// Codec sampled: systematic sampling, u_i = (U + i) / draws for i in [0, draws) over the cumulative distribution, so
// that id j is drawn draws * p_j times, rounded up or down, with that expectation. (Madow 1949, "On the theory of
// systematic sampling, II".) `uniforms`: U of each row, in (0, 1).
soft_labels::Array SampledOf(const at::Tensor& logits, double temperature, int32_t draws,
                             const std::vector<double>& uniforms);

// Codec scores: log p at ids[offsets[row]] to ids[offsets[row + 1]] of each row.
soft_labels::Array ScoresOf(const at::Tensor& logits, double temperature, const std::vector<int32_t>& ids,
                            const std::vector<int64_t>& offsets);

// Codec classes: the arg-max, the lowest of equals.
soft_labels::Array ClassesOf(const at::Tensor& logits);

}  // namespace polystill::teacher_server
