#include "models/subword_bag.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <string>

#include "runtime/counter_rng.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

constexpr int64_t kMean = 1;  // of at::embedding_bag's modes
constexpr double kNormEps = 1e-5;
// Parameters before those of the hidden layers: embedding.weight, norm.weight, norm.bias.
constexpr size_t kFirstLinear = 3;

// A parameter starts at `center`, plus a number drawn uniformly from (-spread, spread).
struct ParameterSpec {
  std::string name;
  std::vector<int64_t> sizes;
  double center = 0;
  double spread = 0;
};

absl::Status CheckShape(const ModelShape& shape) {
  const auto refuse = [](const char* key, int64_t value, const char* rule) {
    return absl::InvalidArgumentError(absl::StrCat(key, ": is ", value, ", must be ", rule));
  };
  const v1::Model& spec = shape.spec;
  if (spec.width() < 1 || spec.width() > 65536) return refuse("model.width", spec.width(), "1 to 65536");
  if (spec.hidden_layers() < 0 || spec.hidden_layers() > 64) {
    return refuse("model.hidden_layers", spec.hidden_layers(), "0 to 64");
  }
  if (shape.vocab_size < 1 || shape.vocab_size > INT32_MAX) {
    return refuse("vocab_size", shape.vocab_size, "1 to 2147483647");
  }
  if (shape.classes < 1 || shape.classes > INT32_MAX) return refuse("labels", shape.classes, "at least one class");
  return absl::OkStatus();
}

void AddLinear(const std::string& name, int64_t outputs, int64_t inputs, std::vector<ParameterSpec>* specs) {
  const double spread = 1 / std::sqrt(static_cast<double>(inputs));
  specs->push_back({name + ".weight", {outputs, inputs}, 0, spread});
  specs->push_back({name + ".bias", {outputs}, 0, spread});
}

std::vector<ParameterSpec> ParameterSpecs(const ModelShape& shape) {
  const int64_t width = shape.spec.width();
  std::vector<ParameterSpec> specs = {
      {"embedding.weight", {shape.vocab_size, width}, 0, std::sqrt(3.0 / static_cast<double>(width))},
      {"norm.weight", {width}, 1, 0},
      {"norm.bias", {width}, 0, 0},
  };
  for (int i = 0; i < shape.spec.hidden_layers(); ++i) AddLinear(absl::StrCat("hidden.", i), width, width, &specs);
  AddLinear("head", shape.classes, width, &specs);
  return specs;
}

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

absl::StatusOr<std::unique_ptr<SubwordBag>> SubwordBag::Create(const ModelShape& shape, uint64_t seed) {
  RETURN_IF_ERROR(CheckShape(shape));
  const at::ScalarType dtype = shape.dtype == v1::Student::DTYPE_FLOAT64 ? at::kDouble : at::kFloat;
  try {
    checkpoint::NamedTensors parameters;
    for (const ParameterSpec& spec : ParameterSpecs(shape)) {
      parameters.emplace_back(spec.name, Draw(spec, seed, dtype).set_requires_grad(true));
    }
    return std::unique_ptr<SubwordBag>(new SubwordBag(std::move(parameters)));
  } catch (const c10::Error& error) {
    return absl::ResourceExhaustedError(absl::StrCat("model of width ", shape.spec.width(), " and vocabulary ",
                                                     shape.vocab_size,
                                                     " does not fit into memory: ", error.what_without_backtrace()));
  }
}

absl::StatusOr<int64_t> SubwordBag::CountParameters(const ModelShape& shape) {
  RETURN_IF_ERROR(CheckShape(shape));
  int64_t count = 0;
  for (const ParameterSpec& spec : ParameterSpecs(shape)) count += c10::multiply_integers(spec.sizes);
  return count;
}

at::Tensor SubwordBag::Forward(const TokenBatch& batch) const {
  const auto parameter = [this](size_t index) -> const at::Tensor& { return parameters_[index].second; };
  const at::Tensor& embedding = parameter(0);
  const auto [mean, unused_bag, unused_sizes, unused_max] =
      at::embedding_bag(embedding, batch.ids, batch.offsets, /*scale_grad_by_freq=*/false, kMean, /*sparse=*/false,
                        /*per_sample_weights=*/{}, /*include_last_offset=*/true);
  at::Tensor hidden = at::layer_norm(mean, {embedding.size(1)}, parameter(1), parameter(2), kNormEps);
  size_t next = kFirstLinear;
  for (; next + 2 < parameters_.size(); next += 2) {
    hidden = at::gelu(at::linear(hidden, parameter(next), parameter(next + 1)));
  }
  return at::linear(hidden, parameter(next), parameter(next + 1));
}

}  // namespace polystill::models
