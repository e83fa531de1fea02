#include "student_worker/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace polystill::student_worker {
namespace {

v1::Optimizer Spec(v1::Optimizer::Schedule schedule, int64_t warmup_steps) {
  v1::Optimizer optimizer;
  optimizer.set_lr(0.4);
  optimizer.set_schedule(schedule);
  optimizer.set_warmup_steps(warmup_steps);
  return optimizer;
}

struct Case {
  v1::Optimizer::Schedule schedule;
  int64_t warmup_steps;
  int64_t steps;
  int64_t step;
  double expected;
};

TEST(LearningRate, FollowsTheSchedule) {
  const auto constant = v1::Optimizer::SCHEDULE_CONSTANT;
  const auto cosine = v1::Optimizer::SCHEDULE_COSINE;
  const Case cases[] = {
      {constant, 0, 10, 0, 0.4},
      {constant, 0, 10, 9, 0.4},
      {constant, 3, 10, 0, 0.1},  // a line through 0 at step -1 and 0.4 at step 3
      {constant, 3, 10, 1, 0.2},
      {constant, 3, 10, 2, 0.3},
      {constant, 3, 10, 3, 0.4},
      {constant, 3, 10, 9, 0.4},
      {cosine, 0, 11, 0, 0.4},
      {cosine, 0, 11, 5, 0.2},
      {cosine, 0, 11, 10, 0.0},
      {cosine, 4, 25, 4, 0.4},
      {cosine, 4, 25, 9, 0.2 * (1 + std::sqrt(0.5))},  // a quarter of the way: cos(pi/4)
      {cosine, 4, 25, 14, 0.2},
      {cosine, 4, 25, 24, 0.0},
      {cosine, 10, 5, 4, 0.4 * 5 / 11},  // a warm-up that does not end
      {cosine, std::numeric_limits<int64_t>::max(), 10, 9, 0.4 * 10 / 0x1p63},
      {cosine, 0, 1, 0, 0.4},  // the only step is not lost
  };
  for (const Case& c : cases) {
    EXPECT_NEAR(LearningRate(Spec(c.schedule, c.warmup_steps), c.step, c.steps), c.expected, 1e-15)
        << "step " << c.step << " of " << c.steps << ", warm-up " << c.warmup_steps;
  }
}

}  // namespace
}  // namespace polystill::student_worker
