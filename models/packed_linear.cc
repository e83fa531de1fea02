#include "models/packed_linear.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

#include <exception>
#include <optional>

namespace polystill::models {
namespace {

using Pointwise = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                             c10::string_view activation, c10::List<std::optional<at::Scalar>> scalars,
                             std::optional<c10::string_view> algorithm);

// ATen declares these operators in no header: PyTorch's own compiler finds them by name, too.
c10::OperatorHandle Operator(const char* name) { return c10::Dispatcher::singleton().findSchemaOrThrow(name, ""); }

// oneDNN's own exceptions become ATen's.
template <typename Call>
at::Tensor Translated(Call call) {
  try {
    return call();
  } catch (const c10::Error&) {
    throw;
  } catch (const std::exception& error) {
    TORCH_CHECK(false, "oneDNN: ", error.what());
  }
}

}  // namespace

at::Tensor PackWeight(const at::Tensor& weight, int64_t rows) {
  if (!at::hasMKLDNN() || !weight.is_cpu() || weight.scalar_type() != at::kFloat) return {};
  const at::NoGradGuard no_grad;
  return Translated([&] {
    c10::Stack stack = {weight.detach(), rows};
    Operator("mkldnn::_reorder_linear_weight").callBoxed(&stack);
    return stack[0].toTensor();
  });
}

at::Tensor PackedLinear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias, Activation activation) {
  static auto linear = Operator("mkldnn::_linear_pointwise").typed<Pointwise>();
  // "none" is the algorithm of GELU's own formula, by erf, as at::gelu has it.
  return Translated([&] {
    return linear.call(x, packed, bias, activation == Activation::kGelu ? "gelu" : "none",
                       c10::List<std::optional<at::Scalar>>(), "none");
  });
}

}  // namespace polystill::models
