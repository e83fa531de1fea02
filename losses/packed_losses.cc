#include "losses/packed_losses.h"

#include <limits>

namespace polystill::losses {
namespace {

constexpr int64_t kClasses = 1;  // the dimension

}  // namespace

at::Tensor GhostTopK(const at::Tensor& student, const at::Tensor& ids, const at::Tensor& log_p,
                     const at::Tensor& log_rest, double temperature) {
  const at::Tensor log_q = at::log_softmax(student / temperature, kClasses);
  at::Tensor sum = (log_p.exp() * (log_p - log_q.gather(kClasses, ids))).sum();
  if (ids.size(kClasses) < student.size(kClasses)) {
    const at::Tensor outside = log_q.scatter(kClasses, ids, -std::numeric_limits<double>::infinity());
    sum = sum + (log_rest.exp() * (log_rest - at::logsumexp(outside, kClasses))).sum();
  }
  return sum * (temperature * temperature);
}

at::Tensor SampledSoftLabel(const at::Tensor& student, const at::Tensor& rows, const at::Tensor& ids,
                            const at::Tensor& counts, const at::Tensor& entropies, double draws, double temperature) {
  const at::Tensor log_q = at::log_softmax(student / temperature, kClasses);
  const at::Tensor cross_entropy = -(counts / draws * log_q.index({rows, ids})).sum();
  return (cross_entropy - entropies.sum()) * (temperature * temperature);
}

}  // namespace polystill::losses
