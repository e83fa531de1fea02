#include "student_worker/phases.h"

#include <gtest/gtest.h>

namespace polystill::student_worker {
namespace {

TEST(LatelyMean, IsTheMeanOfManyShortSteps) {
  LatelyMean mean;
  double last = 0;
  // Each tenth step takes ten times as long as the others: 1.9 times the time of those, however the last one was.
  for (int step = 1; step <= 10'000; ++step) last = mean.Add(step % 10 == 0 ? 0.01 : 0.001, 0.002);
  EXPECT_NEAR(last, 0.0019, 0.0001);
}

TEST(LatelyMean, ForgetsWhatIsLongAgo) {
  LatelyMean mean;
  for (int step = 0; step < 1000; ++step) mean.Add(5, 0.01);
  double last = 0;
  for (int step = 0; step < 1000; ++step) last = mean.Add(1, 0.01);
  EXPECT_NEAR(last, 1, 0.05);
}

TEST(LatelyMean, IsTheLastOfLongSteps) {
  LatelyMean mean;
  EXPECT_EQ(mean.Add(30, 40), 30);
  EXPECT_NEAR(mean.Add(10, 40), 10, 1e-3);
}

}  // namespace
}  // namespace polystill::student_worker
