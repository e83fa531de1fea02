#include "student_worker/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"
#include "student_worker/schedule.h"

namespace polystill::student_worker {

Optimizer::Optimizer(v1::Optimizer spec, int64_t steps, NamedTensors parameters)
    : spec_(std::move(spec)), steps_(steps) {
  const bool adam = spec_.kind() != v1::Optimizer::KIND_SGD;
  const at::Device device = parameters.empty() ? at::Device(at::kCPU) : parameters[0].second.device();
  const at::Tensor count = at::zeros({}, at::TensorOptions(at::kFloat).device(device));
  for (auto& [name, parameter] : parameters) {
    if (adam || spec_.momentum() > 0) first_.push_back(at::zeros_like(parameter));
    if (adam) second_.push_back(at::zeros_like(parameter));
    if (adam) counts_.push_back(count);
    names_.push_back(name);
    parameters_.push_back(parameter);
  }
}

absl::Status Optimizer::ComputeClipFactor(const std::vector<at::Tensor>& gradients, double* factor) const {
  *factor = 1.0;
  double sum_of_squares = 0;
  const at::Tensor norms = cuda::ToHost(at::stack(at::_foreach_norm(gradients)));
  for (int64_t i = 0; i < norms.numel(); ++i) sum_of_squares += std::pow(norms[i].item<double>(), 2);
  const double norm = std::sqrt(sum_of_squares);
  if (!std::isfinite(norm)) {
    return absl::FailedPreconditionError(absl::StrCat("step ", step_, ": the gradients' norm is ", norm,
                                                      "; lower student.optimizer.lr or lengthen its warm-up"));
  }
  if (spec_.clip_norm() > 0 && norm > spec_.clip_norm()) *factor = spec_.clip_norm() / norm;
  return absl::OkStatus();
}

absl::Status Optimizer::Step() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& parameter : parameters_) gradients.push_back(parameter.grad());
  double factor = 1.0;
  RETURN_IF_ERROR(ComputeClipFactor(gradients, &factor));
  std::optional<at::Tensor> divisor;
  if (factor != 1.0 && gradients[0].scalar_type() == at::kFloat) {
    divisor = at::scalar_tensor(1.0 / factor,
                                gradients[0].options());  // the kernel divides while it reads the gradients anyway
  } else if (factor != 1.0) {
    at::_foreach_mul_(gradients, factor);  // the kernel's divisor is a float32
  }
  const double lr = LearningRate(spec_, step_, steps_);
  if (!counts_.empty()) counts_[0].add_(1);
  switch (spec_.kind()) {
    case v1::Optimizer::KIND_SGD:
      at::_fused_sgd_(parameters_, gradients, first_, spec_.weight_decay(), spec_.momentum(), lr, /*dampening=*/0.0,
                      /*nesterov=*/false, /*maximize=*/false, /*is_first_step=*/step_ == 0, divisor);
      break;
    case v1::Optimizer::KIND_ADAM:
      at::_fused_adam_(parameters_, gradients, first_, second_, {}, counts_, lr, spec_.beta1(), spec_.beta2(),
                       spec_.weight_decay(), spec_.eps(), /*amsgrad=*/false, /*maximize=*/false, divisor);
      break;
    default:
      at::_fused_adamw_(parameters_, gradients, first_, second_, {}, counts_, lr, spec_.beta1(), spec_.beta2(),
                        spec_.weight_decay(), spec_.eps(), /*amsgrad=*/false, /*maximize=*/false, divisor);
  }
  ++step_;
  return absl::OkStatus();
}

Optimizer::NamedTensors Optimizer::State() const {
  NamedTensors state;
  const bool adam = !second_.empty();
  for (size_t i = 0; i < first_.size(); ++i) {
    state.emplace_back(absl::StrCat("", adam ? "exp_avg." : "momentum.", names_[i]), first_[i]);
    if (adam) state.emplace_back(absl::StrCat("exp_avg_sq.", names_[i]), second_[i]);
  }
  if (adam) state.emplace_back("count", counts_[0]);
  return state;
}

absl::Status Optimizer::Restore(int64_t step, const NamedTensors& state) {
  const NamedTensors mine = State();
  for (size_t i = 0; i < std::max(mine.size(), state.size()); ++i) {
    if (i >= mine.size()) return absl::InvalidArgumentError(absl::StrCat("tensor '", state[i].first, "' is surplus"));
    const auto& [name, tensor] = mine[i];
    if (i >= state.size() || state[i].first != name) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is missing"));
    }
    if (state[i].second.sizes() == tensor.sizes() && state[i].second.scalar_type() == tensor.scalar_type()) continue;
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' has another shape or type"));
  }
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < mine.size(); ++i) mine[i].second.copy_(state[i].second);
  step_ = step;
  return absl::OkStatus();
}

}  // namespace polystill::student_worker
