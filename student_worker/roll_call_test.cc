#include "student_worker/roll_call.h"

#include <gtest/gtest.h>

#include <memory>

namespace polystill::student_worker {
namespace {

struct Case {
  double step_seconds;
  int64_t steps;
};
class StepsBetween : public testing::TestWithParam<Case> {};
TEST_P(StepsBetween, IsHalfASecond) { EXPECT_EQ(StepsBetweenRollCalls(GetParam().step_seconds), GetParam().steps); }
INSTANTIATE_TEST_SUITE_P(Cases, StepsBetween,
                         testing::Values(Case{0, 1000}, Case{0.0001, 1000}, Case{0.125, 4}, Case{0.5, 1}, Case{60, 1}));

TEST(RollCallTest, TellsWhetherToStopOrToFormAnew) {
  const auto group = collectives::Group::Create({});
  ASSERT_TRUE(group.ok()) << group.status();
  RollCall roll_call(group->get(), 7);
  EXPECT_FALSE(roll_call.IsDue(7));
  EXPECT_TRUE(roll_call.IsDue(8));
  v1::RankNote note;
  note.set_step_seconds(0.125);
  note.mutable_counted()->set_data_wait_seconds(1.5);
  auto answer = roll_call.Hold(8, note);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_FALSE(answer->stop);
  EXPECT_FALSE(answer->regroup);
  EXPECT_EQ(answer->waited_seconds, 1.5);
  EXPECT_FALSE(roll_call.IsDue(11));
  EXPECT_TRUE(roll_call.IsDue(12));
  note.set_stop(true);
  note.set_regroup(true);
  answer = roll_call.Hold(12, note);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->stop);
  EXPECT_TRUE(answer->regroup);
}

}  // namespace
}  // namespace polystill::student_worker
