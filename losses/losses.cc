#include "losses/losses.h"

namespace polystill::losses {
namespace {

constexpr int64_t kClasses = 1;  // the dimension
constexpr int64_t kUnjudged = -1;

at::Tensor Centred(const at::Tensor& logits) { return logits - logits.mean(kClasses, /*keepdim=*/true); }

}  // namespace

at::Tensor SoftLabel(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  const at::Tensor log_p = at::log_softmax(teacher.detach() / temperature, kClasses);
  const at::Tensor log_q = at::log_softmax(student / temperature, kClasses);
  // log p is finite even where p underflows to 0: their product is 0, not NaN.
  return (log_p.exp() * (log_p - log_q)).sum() * (temperature * temperature);
}

at::Tensor CrossEntropy(const at::Tensor& student, const at::Tensor& classes) {
  return at::nll_loss(at::log_softmax(student, kClasses), classes, /*weight=*/{}, at::Reduction::Sum, kUnjudged);
}

at::Tensor HardLabel(const at::Tensor& student, const at::Tensor& teacher) {
  return CrossEntropy(student, teacher.argmax(kClasses));
}

at::Tensor LogitMse(const at::Tensor& student, const at::Tensor& teacher) {
  return (Centred(student) - Centred(teacher.detach())).square().mean(kClasses).sum();
}

at::Tensor Binary(const at::Tensor& student, const at::Tensor& teacher, double temperature) {
  const at::Tensor t = teacher.detach() / temperature, s = student / temperature;
  // KL of a label that holds and of one that does not: log(1 - p) is log sigmoid(-t). Logarithms of probabilities that
  // underflow to 0 are finite.
  const auto part = [](const at::Tensor& t, const at::Tensor& s) {
    const at::Tensor log_p = at::log_sigmoid(t);
    return (log_p.exp() * (log_p - at::log_sigmoid(s))).sum();
  };
  return (part(t, s) + part(-t, -s)) * (temperature * temperature);
}

at::Tensor BinaryCrossEntropy(const at::Tensor& student, const at::Tensor& holds) {
  return at::binary_cross_entropy_with_logits(student, holds.to(student.options()), /*weight=*/{}, /*pos_weight=*/{},
                                              at::Reduction::Sum);
}

at::Tensor BinaryHardLabel(const at::Tensor& student, const at::Tensor& teacher) {
  return BinaryCrossEntropy(student, teacher.gt(0));
}

at::Tensor BinaryLogitMse(const at::Tensor& student, const at::Tensor& teacher) {
  return (student - teacher.detach()).square().mean(kClasses).sum();
}

}  // namespace polystill::losses
