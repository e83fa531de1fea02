#pragma once

#include <ATen/ATen.h>

namespace polystill::losses {

// Distances of a student's features h_s from a teacher's h_t, through a projection W that is learnt beside the student,
// so that their widths may differ (Romero et al. 2015, "FitNets", arXiv:1412.6550, section 2.2; Jiao et al. 2020,
// "TinyBERT", arXiv:1909.10351, section 3.1).
//
// Shapes: h_s [rows, student width], W [width, student width], h_t [rows, width], of one floating type and device; rows
// may be 0, and are those of records or of tokens: what is padding has none. Each returns a scalar: the SUM over the
// rows, for the caller to divide by the rows of the whole step. Gradients flow to h_s and W; the teacher's numbers are
// taken as constants. Arguments are trusted here; weighted.h checks what comes from outside.
//
// References: tests/references/feature_losses.py computes values and gradients independently, in float64.

// Mean over the channels of (W h_s - h_t)^2. d/d(W h_s) = (2 / width) (W h_s - h_t).
at::Tensor FeatureMse(const at::Tensor& student, const at::Tensor& projection, const at::Tensor& teacher);

// 1 - cos(W h_s, h_t), in [0, 2] whatever the sizes of the vectors. A zero vector has the cosine 0 with every other,
// and gets no gradient.
at::Tensor FeatureCosine(const at::Tensor& student, const at::Tensor& projection, const at::Tensor& teacher);

}  // namespace polystill::losses
