#pragma once

#include <ATen/ATen.h>

namespace polystill::losses {

// Losses of a classifier of one class a row. p = softmax(t / T) is the teacher, q = softmax(s / T) the student.
//
// Shapes: student logits s and teacher logits t [rows, classes] of one floating type and device, classes [rows] int64;
// rows may be 0. Each returns a scalar: the SUM over the rows. The caller divides by the number of rows of the whole
// step (all micro-batches, all ranks), so that slices of any size add up to the same mean. Gradients flow to s alone:
// the teacher's numbers are taken as constants. Logits of any finite size give finite losses and gradients as far as
// the type can hold them. Arguments are trusted here; weighted.h checks what comes from outside.
//
// References: tests/references/losses.py computes values and gradients independently, in float64.

// T^2 KL(p || q) = T^2 sum_c p_c (log p_c - log q_c), over T > 0. d/ds = T (q - p). The factor T^2 keeps the size of
// the gradient when T changes: Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network",
// arXiv:1503.02531, section 2.
at::Tensor SoftLabel(const at::Tensor& student, const at::Tensor& teacher, double temperature);

// - log q_y at T = 1, y the given class of each row. d/ds = q - onehot(y). A row of class -1 counts for nothing.
at::Tensor CrossEntropy(const at::Tensor& student, const at::Tensor& classes);

// Cross-entropy with the teacher's arg-max, the lowest class among equals (Kim and Rush 2016, arXiv:1606.07947, section
// 2.2; Lee 2013, "Pseudo-label").
at::Tensor HardLabel(const at::Tensor& student, const at::Tensor& teacher);

// Mean over classes of ((s - mean s) - (t - mean t))^2: centred, since softmax ignores a shift of the logits. d/ds =
// (2 / classes) ((s - mean s) - (t - mean t)). Ba and Caruana 2014, "Do deep nets really need to be deep?",
// arXiv:1312.6184, section 2.2.
at::Tensor LogitMse(const at::Tensor& student, const at::Tensor& teacher);

// Losses of labels that hold or not, each by itself: p = sigmoid(t / T) is the teacher, q = sigmoid(s / T) the student,
// [rows, labels]. One logit alone, [rows, 1], tells two classes apart: q is the probability of the second.

// T^2 times the sum over labels of KL(Bernoulli(p) || Bernoulli(q)), over T > 0. d/ds = T (q - p). With one label it is
// SoftLabel of the logits (0, t) and (0, s).
at::Tensor Binary(const at::Tensor& student, const at::Tensor& teacher, double temperature);

// Sum over labels of - y log q - (1 - y) log(1 - q) at T = 1, y [rows, labels] of 0 and 1, of any type. d/ds = q - y.
at::Tensor BinaryCrossEntropy(const at::Tensor& student, const at::Tensor& holds);

// BinaryCrossEntropy with the labels that the teacher holds to be true: t > 0.
at::Tensor BinaryHardLabel(const at::Tensor& student, const at::Tensor& teacher);

// Mean over labels of (s - t)^2, of which sigmoids ignore no shift.
at::Tensor BinaryLogitMse(const at::Tensor& student, const at::Tensor& teacher);

}  // namespace polystill::losses
