#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "soft_labels/array.h"

namespace polystill::rivals {

// What codec sampled would hold if each row's draws from p = softmax(logits / T) were independent of one another: each
// by inversion over the cumulative distribution in float64, as a teacher's systematic ones are.
class IndependentDraws {
 public:
  // `logits`: [rows, classes], float32, finite, on the CPU.
  IndependentDraws(const at::Tensor& logits, double temperature);

  // The uniforms of a row follow from (seed, row).
  soft_labels::Array Draw(int32_t draws, uint64_t seed) const;

 private:
  at::Tensor cumulative_;  // [rows, classes], of weights that are not normalised
  std::vector<float> entropies_;
};

}  // namespace polystill::rivals
