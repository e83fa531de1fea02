#include "models/python_engine.h"

#include <gtest/gtest.h>

namespace polystill::models {
namespace {

TEST(RestartDelay, GrowsToHalfAMinute) {
  const int seconds[] = {0, 1, 2, 4, 8, 16, 30, 30};
  for (int failures = 0; failures < 8; ++failures) {
    EXPECT_EQ(RestartDelay(failures), std::chrono::seconds(seconds[failures])) << failures;
  }
  EXPECT_EQ(RestartDelay(1'000'000), std::chrono::seconds(30));
}

}  // namespace
}  // namespace polystill::models
