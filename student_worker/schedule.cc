#include "student_worker/schedule.h"

#include <cmath>
#include <numbers>

namespace polystill::student_worker {

double LearningRate(const v1::Optimizer& optimizer, int64_t step, int64_t steps) {
  const int64_t warmup = optimizer.warmup_steps();
  if (step < warmup) return optimizer.lr() * static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  const int64_t decay_steps = steps - 1 - warmup;
  if (optimizer.schedule() != v1::Optimizer::SCHEDULE_COSINE || decay_steps <= 0) return optimizer.lr();
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(decay_steps);
  return optimizer.lr() * 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace polystill::student_worker
