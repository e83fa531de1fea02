#include "evaluation/bootstrap.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

namespace polystill::evaluation {
namespace {

constexpr int kResamples = 2000;
constexpr size_t kAccuracy = 0;  // in kMetrics

// Two classes; what the models predict for a record of class 0.
Prediction Row(const std::string& language, const std::string& group, const std::vector<int>& predicted) {
  Prediction row{"id", language, group, 0, {}};
  for (const int index : predicted)
    row.probabilities.push_back(index == 0 ? std::vector<float>{1, 0} : std::vector<float>{0, 1});
  return row;
}

// `copies` equal records in each of `groups` groups, right with probability 0.7.
Tally Clustered(int groups, int copies) {
  Tally tally(1, 2, 1);
  for (int group = 0; group < groups; ++group) {
    const int predicted = UniformOpen(11, group) < 0.7 ? 0 : 1;
    for (int i = 0; i < copies; ++i) tally.Add(Row("de", absl::StrCat("g", group), {predicted}));
  }
  return tally;
}

double Width(const Interval& interval) { return interval.high - interval.low; }

TEST(Bootstrap, WidthOfAProportionFollowsTheNumberOfGroups) {
  for (const int copies : {1, 5}) {
    const Tally tally = Clustered(400, copies);
    const double p = MeanOf(tally, 0, Metric::kAccuracy);
    const Intervals intervals = *Bootstrap(tally, 0, kResamples, 1);
    const Interval interval = intervals.mean[0][kAccuracy];
    const double normal = 1.96 * std::sqrt(p * (1 - p) / 400);
    EXPECT_NEAR(interval.low, p - normal, 0.15 * normal) << copies;
    EXPECT_NEAR(interval.high, p + normal, 0.15 * normal) << copies;
    EXPECT_EQ(intervals.languages.at("de")[0][kAccuracy].low, interval.low);
    EXPECT_EQ(intervals.differences[0][kAccuracy].low, 0.0);
    EXPECT_EQ(intervals.differences[0][kAccuracy].high, 0.0);
  }
}

TEST(Bootstrap, AGroupIsDrawnWithAllItsLanguages) {
  Tally together(1, 2, 1), apart(1, 2, 1);
  for (int i = 0; i < 400; ++i) {
    const int predicted = UniformOpen(12, i) < 0.7 ? 0 : 1;
    for (const char* language : {"de", "fr", "ja", "ko"}) {
      together.Add(Row(language, absl::StrCat("g", i), {predicted}));
      apart.Add(Row(language, absl::StrCat("g", i, language), {predicted}));
    }
  }
  const double ratio = Width(Bootstrap(together, 0, kResamples, 1)->mean[0][kAccuracy]) /
                       Width(Bootstrap(apart, 0, kResamples, 1)->mean[0][kAccuracy]);
  // Four languages that err together tell no more than one: twice the width of four that do not.
  EXPECT_NEAR(ratio, 2.0, 0.3);
}

TEST(Bootstrap, DifferencesArePaired) {
  Tally tally(2, 2, 1);
  // The second model errs where the first does, and on every tenth record besides.
  for (int i = 0; i < 400; ++i) {
    const bool hard = UniformOpen(13, i) < 0.4;
    tally.Add(Row("de", "", {hard ? 1 : 0, hard || i % 10 == 0 ? 1 : 0}));
  }
  EXPECT_EQ(tally.groups(), 400);  // records without a group: each its own
  const Intervals intervals = *Bootstrap(tally, 0, kResamples, 1);
  const Interval difference = intervals.differences[1][kAccuracy];
  const double point = MeanOf(tally, 0, Metric::kAccuracy) - MeanOf(tally, 1, Metric::kAccuracy);
  EXPECT_GT(difference.low, 0.0);
  EXPECT_LT(difference.low, point);
  EXPECT_GT(difference.high, point);
  EXPECT_LT(Width(difference), 0.7 * Width(intervals.mean[0][kAccuracy]));
}

TEST(Bootstrap, StopsBetweenTwoResamples) {
  std::stop_source stop;
  EXPECT_TRUE(Bootstrap(Clustered(50, 1), 0, 10, 1, stop.get_token()).ok());
  stop.request_stop();
  EXPECT_EQ(Bootstrap(Clustered(50, 1), 0, 10, 1, stop.get_token()).status().code(), absl::StatusCode::kCancelled);
}

TEST(Bootstrap, IsAFunctionOfTheSeed) {
  const Tally tally = Clustered(50, 1);
  const auto low = [&](uint64_t seed) { return Bootstrap(tally, 0, 100, seed)->mean[0][kAccuracy]; };
  EXPECT_EQ(low(1).low, low(1).low);
  EXPECT_EQ(low(1).high, low(1).high);
  EXPECT_NE(Bootstrap(tally, 0, 1, 1)->mean[0][kAccuracy].low, Bootstrap(tally, 0, 1, 2)->mean[0][kAccuracy].low);
}

// A language whose one group is not drawn has no share in that resample's mean.
TEST(Bootstrap, LanguagesThatAResampleMissesAreLeftOut) {
  Tally tally(1, 2, 1);
  tally.Add(Row("de", "a", {0}));
  tally.Add(Row("fr", "b", {1}));
  const Intervals intervals = *Bootstrap(tally, 0, kResamples, 1);
  EXPECT_EQ(intervals.languages.at("de")[0][kAccuracy].low, 1.0);
  EXPECT_EQ(intervals.languages.at("fr")[0][kAccuracy].high, 0.0);
  EXPECT_EQ(intervals.mean[0][kAccuracy].low, 0.0);
  EXPECT_EQ(intervals.mean[0][kAccuracy].high, 1.0);
}

}  // namespace
}  // namespace polystill::evaluation
