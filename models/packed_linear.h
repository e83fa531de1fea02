#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace polystill::models {

// Linear layers of models that are not trained any more, by oneDNN: the weight lies in the order in which its kernels
// read it, and an activation is applied while the product is in the cache. On a CPU, in float32, without gradients.

// `weight` [outputs, inputs], laid out for products of `rows` rows (others come out right too). Undefined where there
// is no oneDNN, or the weight is not float32 on a CPU. Takes as much memory as the weight.
at::Tensor PackWeight(const at::Tensor& weight, int64_t rows);

enum class Activation { kNone, kGelu };

// x [rows, inputs], contiguous float32; `packed`: of PackWeight; bias [outputs] -> [rows, outputs]. A row's bits depend
// on the number of rows and the threads, not on the other rows. Throws c10::Error.
at::Tensor PackedLinear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias, Activation activation);

}  // namespace polystill::models
