#pragma once

#include <ATen/ATen.h>

namespace polystill::losses {

// T^2 KL(p || q) as SoftLabel (losses.h) has it, from labels that hold less than all of p: q = softmax(s / T), s the
// student's logits [rows, classes]. Each returns a scalar, the SUM over the rows; gradients flow to s alone. Nothing is
// renormalised. Arguments are trusted here; weighted.h checks what comes from outside.
//
// References: tests/references/packed_losses.py computes values and gradients independently, in float64.

// With all ids outside the k as one ghost: T^2 (sum_K p log(p / q) + R log(R / (1 - Q))), K the ids whose p is known, R
// = 1 - sum_K p, Q = sum_K q. d/ds_j = T (q_j - p_j) on K, T q_j (P - Q) / (1 - Q) outside: less than the whole KL,
// which it equals when k is the number of classes. log(1 - Q) is a log-sum-exp over the ids outside K: log1p(-Q) has no
// gradient where Q rounds to 1.
//
// ids: [rows, k] int64, each once in a row. log_p: [rows, k]. log_rest: [rows], log R; not read when k is the number of
// classes.
at::Tensor GhostTopK(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& log_p,
                     const at::Tensor& log_rest, double temperature);

// From N draws of p for each row, the id j drawn c_j times: T^2 (- sum_j (c_j / N) log q_j - H(p)). d/ds_j = T (q_j -
// c_j / N). Both have the expectation of the whole KL's when the c_j have N p_j.
//
// rows, ids, counts: [ids drawn], of all rows; int64, int64 and floating. entropies: [rows], H(p) in nats.
at::Tensor SampledSoftLabel(const at::Tensor& student, const at::Tensor& rows, const at::Tensor& ids,
                            const at::Tensor& counts, const at::Tensor& entropies, double draws, double temperature);

}  // namespace polystill::losses
