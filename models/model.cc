#include "models/model.h"

#include <ATen/core/grad_mode.h>

#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "models/init.h"
#include "models/script_model.h"
#include "models/subword_bag.h"
#include "models/transformer.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

std::string Describe(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes() << " " << tensor.scalar_type();
  return text.str();
}

// OK when `value` may become the value of `parameter`.
absl::Status CheckValue(const std::string& name, const at::Tensor& value, const at::Tensor& parameter) {
  if (value.sizes() != parameter.sizes() || value.scalar_type() != parameter.scalar_type()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor '", name, "' is ", Describe(value), ", the model needs ", Describe(parameter)));
  }
  if (!at::isfinite(value).all().item<bool>()) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' holds numbers that are not finite"));
  }
  return absl::OkStatus();
}

// What a native model of this shape is made from.
absl::StatusOr<ParameterSpecs> ParametersOf(const ModelShape& shape) {
  if (shape.dtype != v1::Student::DTYPE_FLOAT32 && shape.dtype != v1::Student::DTYPE_FLOAT64) {
    return absl::InvalidArgumentError("dtype: must be float32 or float64");
  }
  RETURN_IF_ERROR(CheckRange("model.width", shape.spec.width(), 1, 65536));
  RETURN_IF_ERROR(CheckRange("vocab_size", shape.vocab_size, 1, INT32_MAX));
  RETURN_IF_ERROR(CheckRange("labels", shape.classes, 1, INT32_MAX));
  switch (shape.spec.kind()) {
    case v1::Model::KIND_SUBWORD_BAG:
      return SubwordBag::Parameters(shape);
    case v1::Model::KIND_TRANSFORMER:
      return Transformer::Parameters(shape);
    default:
      return absl::InvalidArgumentError("model.kind: must be subword_bag, transformer or torchscript");
  }
}

}  // namespace

absl::Status Model::MoveTo(at::Device device) try {
  if (device == device_) return absl::OkStatus();
  for (const auto& [name, parameter] : NamedParameters()) parameter.set_data(parameter.detach().to(device));
  MoveRest(device);
  device_ = device;
  return absl::OkStatus();
} catch (const c10::Error& error) {
  return absl::FailedPreconditionError(
      absl::StrCat("the model cannot be moved to ", device.str(), ": ", error.what_without_backtrace()));
}

at::ScalarType ScalarTypeOf(v1::Student::Dtype dtype) {
  return dtype == v1::Student::DTYPE_FLOAT64 ? at::kDouble : at::kFloat;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const ModelShape& shape, uint64_t seed) {
  if (shape.spec.kind() == v1::Model::KIND_TORCHSCRIPT) return LoadScriptStudent(shape);
  ASSIGN_OR_RETURN(const ParameterSpecs specs, ParametersOf(shape));
  ASSIGN_OR_RETURN(checkpoint::NamedTensors parameters, DrawParameters(specs, seed, ScalarTypeOf(shape.dtype)));
  if (shape.spec.kind() == v1::Model::KIND_TRANSFORMER) {
    return std::make_unique<Transformer>(shape, std::move(parameters));
  }
  return std::make_unique<SubwordBag>(std::move(parameters));
}

absl::StatusOr<int64_t> CountParameters(const ModelShape& shape) {
  ASSIGN_OR_RETURN(const ParameterSpecs specs, ParametersOf(shape));
  return CountNumbers(specs);
}

absl::Status SetParameters(const checkpoint::NamedTensors& values, Model* model) {
  std::map<std::string, at::Tensor> by_name(values.begin(), values.end());
  const checkpoint::NamedTensors parameters = model->NamedParameters();
  for (const auto& [name, parameter] : parameters) {
    const auto value = by_name.find(name);
    if (value == by_name.end()) return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is missing"));
    RETURN_IF_ERROR(CheckValue(name, value->second, parameter));
  }
  if (values.size() != parameters.size()) {
    for (const auto& [name, parameter] : parameters) by_name.erase(name);
    const std::string surplus = by_name.empty() ? values.front().first : by_name.begin()->first;
    return absl::InvalidArgumentError(absl::StrCat("tensor '", surplus, "' is not one of the model's"));
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, parameter] : parameters) parameter.copy_(by_name[name]);
  return absl::OkStatus();
}

int64_t ParameterCount(const checkpoint::NamedTensors& parameters) {
  int64_t count = 0;
  for (const auto& [name, tensor] : parameters) count += tensor.numel();
  return count;
}

std::string WeightsDigest(const checkpoint::NamedTensors& parameters) {
  Sha256 digest;
  for (const auto& [name, parameter] : parameters) {
    const at::Tensor plain = parameter.detach().to(at::kCPU).contiguous();
    digest.Update(std::string_view(static_cast<const char*>(plain.data_ptr()), plain.nbytes()));
  }
  return digest.Hex();
}

std::string WeightsDigest(const Model& model) {
  checkpoint::NamedTensors trained;
  std::set<const void*> seen;
  for (auto& [name, parameter] : model.NamedParameters()) {
    if (!parameter.requires_grad() || !seen.insert(parameter.unsafeGetTensorImpl()).second) continue;
    trained.emplace_back(name, parameter);
  }
  return WeightsDigest(trained);
}

}  // namespace polystill::models
