#include "runtime/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

namespace polystill {
namespace {

TEST(CoresTest, TheLesserOfAffinityAndQuota) {
  const struct {
    int runnable;
    const char* cpu_max;
    int expected;
  } cases[] = {{8, "max 100000\n", 8},    {8, "200000 100000\n", 2},
               {8, "150000 100000\n", 2}, {8, "50000 100000", 1},
               {2, "1600000 100000", 2},  {8, "", 8},
               {8, "nonsense", 8},        {8, "0 100000", 8},
               {8, "-1 100000", 8},       {0, "", 1},
               {8, "200000 0", 8},        {4, "1e300 1", 4}};
  for (const auto& c : cases) EXPECT_EQ(CoresAllowed(c.runnable, c.cpu_max), c.expected) << c.cpu_max;
}

TEST(CoresTest, FollowTheAffinity) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(UsableCores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
  EXPECT_LE(UsableCores(), CPU_COUNT(&before));
}

}  // namespace
}  // namespace polystill
