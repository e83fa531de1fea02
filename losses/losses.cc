#include "losses/losses.h"

namespace polystill::losses {
namespace {

constexpr int64_t kClasses = 1;  // the dimension

at::Tensor Centred(const at::Tensor& logits) { return logits - logits.mean(kClasses, /*keepdim=*/true); }

}  // namespace

at::Tensor SoftLabel(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  const at::Tensor log_p = at::log_softmax(teacher.detach() / temperature, kClasses);
  const at::Tensor log_q = at::log_softmax(student / temperature, kClasses);
  // log p is finite even where p underflows to 0: their product is 0, not NaN.
  return (log_p.exp() * (log_p - log_q)).sum() * (temperature * temperature);
}

at::Tensor CrossEntropy(const at::Tensor& student, const at::Tensor& classes) {
  return at::nll_loss(at::log_softmax(student, kClasses), classes, /*weight=*/{}, at::Reduction::Sum);
}

at::Tensor HardLabel(const at::Tensor& student, const at::Tensor& teacher) {
  return CrossEntropy(student, teacher.argmax(kClasses));
}

at::Tensor LogitMse(const at::Tensor& student, const at::Tensor& teacher) {
  return (Centred(student) - Centred(teacher.detach())).square().mean(kClasses).sum();
}

}  // namespace polystill::losses
