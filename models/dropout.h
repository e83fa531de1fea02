#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace polystill::models {

// What dropout multiplies by: [tokens, width] of rows that lie one behind the other, row i at [offsets[i], offsets[i +
// 1]), 0 with probability `rate` and else 1 / (1 - rate), so that the mean stays. `rate`, below 1, is rounded to a
// whole number of 65,536ths.
//
// An element's value is a pure function of (its row's key, site, token * width + channel): neither the other rows nor
// the process that computes it change it. `site` tells the dropouts of a model apart.
at::Tensor DropoutMask(const std::vector<uint64_t>& row_keys, const std::vector<int64_t>& offsets, int64_t width,
                       double rate, uint64_t site, at::ScalarType dtype);

}  // namespace polystill::models
