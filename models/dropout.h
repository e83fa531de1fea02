#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace polystill::models {

// What dropout multiplies by: [rows, length, width], 0 with probability `rate` and else 1 / (1 - rate), so that the
// mean stays. `rate`, below 1, is rounded to a whole number of 65,536ths.
//
// An element's value is a pure function of (its row's key, site, token * width + channel): neither the other rows nor
// the padding nor the process that computes it change it. `site` tells the dropouts of a model apart. `row_lengths`:
// tokens of each row; what is beyond them is 0.
at::Tensor DropoutMask(const std::vector<uint64_t>& row_keys, const std::vector<int64_t>& row_lengths, int64_t length,
                       int64_t width, double rate, uint64_t site, at::ScalarType dtype);

}  // namespace polystill::models
