#include "models/init.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

namespace polystill::models {
namespace {

// Drawn one number after the other from a generator of the parameter's own, in float64, so that neither order nor
// threads nor the kind of CPU changes a bit, and float32 and float64 models start at the same place.
at::Tensor Draw(const ParameterSpec& spec, uint64_t seed, at::ScalarType dtype) {
  if (spec.spread == 0) return at::full(spec.sizes, spec.center, at::TensorOptions(dtype));
  const at::Generator generator = at::detail::createCPUGenerator(CombineKey(seed, NameWord(spec.name)));
  at::Tensor unit = at::empty(spec.sizes, at::kDouble).uniform_(0, 1, generator);
  // Three roundings of IEEE arithmetic, not a fused one that some CPUs lack.
  return unit.mul_(2).sub_(1).mul_(spec.spread).add_(spec.center).to(dtype);
}

}  // namespace

absl::Status CheckRange(const char* key, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(key, ": is ", value, ", must be ", least, " to ", most));
}

void AddEmbedding(const std::string& name, int64_t rows, int64_t width, ParameterSpecs* specs) {
  specs->push_back({name + ".weight", {rows, width}, 0, std::sqrt(3.0 / static_cast<double>(width))});
}

void AddLinear(const std::string& name, int64_t outputs, int64_t inputs, ParameterSpecs* specs) {
  const double spread = 1 / std::sqrt(static_cast<double>(inputs));
  specs->push_back({name + ".weight", {outputs, inputs}, 0, spread});
  specs->push_back({name + ".bias", {outputs}, 0, spread});
}

void AddLayerNorm(const std::string& name, int64_t width, ParameterSpecs* specs) {
  specs->push_back({name + ".weight", {width}, 1, 0});
  specs->push_back({name + ".bias", {width}, 0, 0});
}

int64_t CountNumbers(const ParameterSpecs& specs) {
  int64_t count = 0;
  for (const ParameterSpec& spec : specs) count += c10::multiply_integers(spec.sizes);
  return count;
}

absl::StatusOr<checkpoint::NamedTensors> DrawParameters(const ParameterSpecs& specs, uint64_t seed,
                                                        at::ScalarType dtype) try {
  checkpoint::NamedTensors parameters;
  for (const ParameterSpec& spec : specs) {
    parameters.emplace_back(spec.name, Draw(spec, seed, dtype).set_requires_grad(true));
  }
  return parameters;
} catch (const c10::Error& error) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "a model of ", CountNumbers(specs), " numbers does not fit into memory: ", error.what_without_backtrace()));
}

}  // namespace polystill::models
