#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"

namespace polystill::models {

// A parameter that is not made yet: it starts at `center`, plus a number drawn uniformly from (-spread, spread).
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> sizes;
  double center = 0;
  double spread = 0;
};
using ParameterSpecs = std::vector<ParameterSpec>;

// INVALID_ARGUMENT, naming `key`, unless `value` is in [least, most].
absl::Status CheckRange(const char* key, int64_t value, int64_t least, int64_t most);

// NAME.weight [rows, width], of standard deviation 1/sqrt(width).
void AddEmbedding(const std::string& name, int64_t rows, int64_t width, ParameterSpecs* specs);
// NAME.weight [outputs, inputs] and NAME.bias [outputs], in +-1/sqrt(inputs) as PyTorch's are.
void AddLinear(const std::string& name, int64_t outputs, int64_t inputs, ParameterSpecs* specs);
// NAME.weight of ones and NAME.bias of zeros, both [width].
void AddLayerNorm(const std::string& name, int64_t width, ParameterSpecs* specs);

// Numbers that the parameters hold.
int64_t CountNumbers(const ParameterSpecs& specs);

// The parameters, which require gradients: a pure function of (specs, seed), the same on every rank, whatever the
// number of threads, and for each parameter whatever the others. RESOURCE_EXHAUSTED when memory does not hold them.
absl::StatusOr<checkpoint::NamedTensors> DrawParameters(const ParameterSpecs& specs, uint64_t seed,
                                                        at::ScalarType dtype);

}  // namespace polystill::models
