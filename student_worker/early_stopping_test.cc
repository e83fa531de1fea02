#include "student_worker/early_stopping.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace polystill::student_worker {
namespace {

constexpr int kClasses = 2;

v1::HeldOutCounts Counts(const std::string& language, std::vector<int64_t> confusion, double loss) {
  v1::HeldOutCounts counts;
  auto* out = counts.add_languages();
  out->set_name(language);
  for (const int64_t count : confusion) {
    out->add_confusion(count);
    out->set_judged(out->judged() + count);
  }
  out->set_loss(std::llround(std::ldexp(loss, 32)));
  return counts;
}

TEST(MetricOf, IsTheMeanOverTheLanguagesHoweverTheRecordsAreShared) {
  // de: 3 of 4 right; ja: 1 of 1.
  const auto de_some = Counts("de", {1, 0, 0, 1}, 0.5), de_rest = Counts("de", {1, 1, 0, 0}, 1.5);
  const auto ja = Counts("ja", {0, 0, 0, 1}, 0.25);
  const v1::HeldOutCounts sum = Sum({de_some, ja, de_rest});
  EXPECT_DOUBLE_EQ(MetricOf(v1::EarlyStopping::METRIC_ACCURACY, sum, kClasses), (0.75 + 1.0) / 2);
  EXPECT_DOUBLE_EQ(MetricOf(v1::EarlyStopping::METRIC_LOSS, sum, kClasses), (0.5 + 0.25) / 2);
  // de, by hand: F1 of class 0 is 4/5, of class 1 is 2/3; ja: only class 1 occurs.
  EXPECT_DOUBLE_EQ(MetricOf(v1::EarlyStopping::METRIC_MACRO_F1, sum, kClasses), ((0.8 + 2.0 / 3) / 2 + 1.0) / 2);
  EXPECT_EQ(Sum({de_rest, de_some, ja}).SerializeAsString(), sum.SerializeAsString());
}

TEST(MetricOf, LabelsThatEachHoldOrNot) {
  // Of label 0 one is right; of label 1 one is right, one missed, one wrongly said; three records, one all right.
  v1::HeldOutCounts counts = Counts("de", {1, 0, 0, 1, 1, 1}, 1.5);
  counts.mutable_languages(0)->set_judged(3);
  counts.mutable_languages(0)->set_right(1);
  const auto metric = [&](v1::EarlyStopping::Metric metric) {
    return MetricOf(metric, Sum({counts, Counts("ja", {0, 0, 0, 0, 0, 0}, 0)}), kClasses, v1::TASK_MULTI_LABEL);
  };
  EXPECT_DOUBLE_EQ(metric(v1::EarlyStopping::METRIC_ACCURACY), 1.0 / 3);
  EXPECT_DOUBLE_EQ(metric(v1::EarlyStopping::METRIC_MACRO_F1), (1 + 0.5) / 2);
  EXPECT_DOUBLE_EQ(metric(v1::EarlyStopping::METRIC_LOSS), 0.5);
}

struct Case {
  const char* name;
  v1::EarlyStopping::Metric metric;
  std::vector<double> values;
  // Measurements taken before it ends; all when it does not.
  size_t taken;
  int64_t best_step;
};
class Stopper : public testing::TestWithParam<Case> {};
TEST_P(Stopper, EndsAfterPatience) {
  v1::EarlyStopping spec;
  spec.set_metric(GetParam().metric);
  spec.set_every(10);
  spec.set_patience(2);
  EarlyStopper stopper(spec, {});
  size_t taken = 0;
  for (const double value : GetParam().values) {
    if (stopper.ended()) break;
    // As if the run had been resumed after every measurement.
    EarlyStopper resumed(spec, stopper.state());
    const auto step = static_cast<int64_t>(10 * ++taken);
    EXPECT_TRUE(stopper.IsDue(step));
    EXPECT_FALSE(stopper.IsDue(step + 1));
    EXPECT_EQ(stopper.Note(step, value), resumed.Note(step, value));
    EXPECT_EQ(stopper.ended(), resumed.ended());
  }
  EXPECT_EQ(taken, GetParam().taken);
  EXPECT_EQ(stopper.state().best_step(), GetParam().best_step);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, Stopper,
    testing::Values(Case{"Improves", v1::EarlyStopping::METRIC_ACCURACY, {0.1, 0.2, 0.3, 0.4}, 4, 40},
                    Case{"TwoWithout", v1::EarlyStopping::METRIC_ACCURACY, {0.1, 0.3, 0.2, 0.3, 0.9}, 4, 20},
                    Case{"OneWithoutIsForgiven", v1::EarlyStopping::METRIC_ACCURACY, {0.1, 0.0, 0.2, 0.1, 0.1}, 5, 30},
                    Case{"LowerLossIsBetter", v1::EarlyStopping::METRIC_LOSS, {2.0, 1.0, 1.5, 1.5, 0.1}, 4, 20},
                    Case{"ZeroCanBeTheBest", v1::EarlyStopping::METRIC_ACCURACY, {0.0, 0.0, 0.0, 0.1}, 3, 10}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace polystill::student_worker
