#include "student_worker/schedule.h"

#include <cmath>
#include <numbers>

namespace polystill::student_worker {

double LearningRate(const v1::Optimizer& optimizer, int64_t step, int64_t steps) {
  // Any int64 may stand in a run file: in doubles nothing overflows.
  const auto at = static_cast<double>(step);
  const auto warmup = static_cast<double>(optimizer.warmup_steps());
  if (at < warmup) return optimizer.lr() * (at + 1) / (warmup + 1);
  const double decay_steps = static_cast<double>(steps) - 1 - warmup;
  if (optimizer.schedule() != v1::Optimizer::SCHEDULE_COSINE || decay_steps <= 0) return optimizer.lr();
  const double progress = (at - warmup) / decay_steps;
  return optimizer.lr() * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace polystill::student_worker
