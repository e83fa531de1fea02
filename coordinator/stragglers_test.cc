#include "coordinator/stragglers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace polystill::coordinator {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;

TEST(RatiosToOthers, ComparesWithTheMedianOfTheOthers) {
  EXPECT_THAT(RatiosToOthers({{2, 8}, {1, 8}}), ElementsAre(DoubleEq(2), DoubleEq(0.5)));
  EXPECT_THAT(RatiosToOthers({{1, 8}, {6, 8}, {2, 8}}), ElementsAre(DoubleEq(0.25), DoubleEq(4), DoubleEq(2 / 3.5)));
  // One that is far slower than all does not make the others look fast.
  EXPECT_THAT(RatiosToOthers({{1, 8}, {1, 8}, {1, 8}, {50, 8}}),
              ElementsAre(DoubleEq(1), DoubleEq(1), DoubleEq(1), DoubleEq(50)));
}

TEST(RatiosToOthers, NobodyIsSlowForARecordMore) {
  EXPECT_THAT(RatiosToOthers({{2, 2}, {1, 1}, {1, 1}}), ElementsAre(DoubleEq(1), DoubleEq(1 / 1.5), DoubleEq(1 / 1.5)));
  // A step of no record costs what it costs.
  EXPECT_THAT(RatiosToOthers({{3, 1}, {1, 1}, {1, 0}}), ElementsAre(DoubleEq(3), DoubleEq(0.5), DoubleEq(0.5)));
}

class SlownessTest : public testing::Test {
 protected:
  // So many looks at as many steps: how often slow() has changed.
  int Look(int looks, double ratio) {
    int changes = 0;
    for (int i = 0; i < looks; ++i) changes += slowness_.Look(++step_, ratio, 3) ? 1 : 0;
    return changes;
  }
  Slowness slowness_;
  int64_t step_ = 0;
};

TEST_F(SlownessTest, TakesTenLooksInARow) {
  EXPECT_EQ(Look(9, 1.6), 0);
  EXPECT_EQ(Look(1, 1.4), 0);
  EXPECT_EQ(Look(9, 1.6), 0);
  EXPECT_FALSE(slowness_.slow());
  EXPECT_EQ(Look(1, 1.6), 1);
  EXPECT_TRUE(slowness_.slow());
  EXPECT_EQ(slowness_.ratio(), 1.6);
  EXPECT_EQ(Look(9, 1.5), 0);
  EXPECT_EQ(Look(1, 1.6), 0);
  EXPECT_EQ(Look(9, 1.5), 0);
  EXPECT_TRUE(slowness_.slow());
  EXPECT_EQ(Look(1, 1.5), 1);
  EXPECT_FALSE(slowness_.slow());
}

TEST_F(SlownessTest, LooksBetweenTwoStepsDoNotCount) {
  EXPECT_EQ(Look(9, 2), 0);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(slowness_.Look(step_, 2, 3));
  EXPECT_EQ(Look(1, 2), 1);
}

TEST_F(SlownessTest, IsBeyondALimitAfterTenLooksInARow) {
  Look(20, 2.9);
  EXPECT_FALSE(slowness_.IsBeyond());
  Look(9, 3.1);
  EXPECT_FALSE(slowness_.IsBeyond());
  Look(1, 3.1);
  EXPECT_TRUE(slowness_.IsBeyond());
  slowness_.MeasureAnew();
  EXPECT_FALSE(slowness_.IsBeyond());
  EXPECT_TRUE(slowness_.slow());
  for (int i = 0; i < 20; ++i) slowness_.Look(++step_, 100, 0);
  EXPECT_FALSE(slowness_.IsBeyond()) << "without a limit";
}

}  // namespace
}  // namespace polystill::coordinator
