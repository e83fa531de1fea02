#include "evaluation/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace polystill::evaluation {
namespace {

struct Case {
  std::string name;
  int classes;
  std::vector<int> gold;
  std::vector<int> predicted;
  double accuracy;
  double macro_f1;
};

class ConfusionTest : public testing::TestWithParam<Case> {};

TEST_P(ConfusionTest, MetricsByHand) {
  const Case& c = GetParam();
  Confusion confusion(c.classes);
  for (size_t i = 0; i < c.gold.size(); ++i) confusion.Add(c.gold[i], c.predicted[i], 1, 0);
  EXPECT_EQ(confusion.records(), static_cast<int64_t>(c.gold.size()));
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kAccuracy), c.accuracy);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMicroF1), c.accuracy);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMacroF1), c.macro_f1);
}

INSTANTIATE_TEST_SUITE_P(
    ByHand, ConfusionTest,
    testing::Values(
        Case{"AllRight", 3, {0, 1, 2}, {0, 1, 2}, 1.0, 1.0},
        // The example of scikit-learn's f1_score: per class 0.8, 0, 0; macro 0.8 / 3 = 0.26...
        Case{"ScikitExample", 3, {0, 1, 2, 0, 1, 2}, {0, 2, 1, 0, 0, 1}, 2.0 / 6, 0.8 / 3},
        // Class 2 occurs nowhere and does not count; class 1 is predicted alone and counts as 0; class 0 is 2/3.
        Case{"AbsentClassIsLeftOut", 3, {0, 0}, {0, 1}, 0.5, (2.0 / 3 + 0.0) / 2},
        // Class 0: TP 2, FP 1, FN 0: 4/5. Class 1: TP 1, FP 0, FN 2: 2/4. Class 2: TP 0, FP 1, FN 0: 0.
        Case{"Unbalanced", 3, {0, 0, 1, 1, 1}, {0, 0, 1, 0, 2}, 0.6, (0.8 + 0.5 + 0.0) / 3},
        Case{"AllWrong", 2, {0, 1}, {1, 0}, 0.0, 0.0}),
    [](const auto& info) { return info.param.name; });

TEST(Confusion, WithoutRecordsThereIsNoMetric) {
  for (const Metric metric : kMetrics) EXPECT_TRUE(std::isnan(Confusion(3).Value(metric))) << MetricName(metric);
}

TEST(Confusion, PrecisionRecallAndClassesByHand) {
  Confusion confusion(4);
  confusion.Add(0, 0, 2, 2);
  confusion.Add(0, 1, 1, 1);
  confusion.Add(1, 1, 3, 3);
  confusion.Add(1, 0, 2, 0);
  confusion.Add(1, 2, 2, 1);
  // Class 0: TP 2, FP 2, FN 1. Class 1: TP 3, FP 1, FN 4. Class 2: FP 2. Class 3 occurs nowhere.
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMacroPrecision), (2.0 / 4 + 3.0 / 4 + 0) / 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMacroRecall), (2.0 / 3 + 3.0 / 7 + 0) / 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kTopK), 7.0 / 10);
  EXPECT_DOUBLE_EQ(confusion.OfClass(1)->precision, 3.0 / 4);
  EXPECT_DOUBLE_EQ(confusion.OfClass(1)->recall, 3.0 / 7);
  EXPECT_DOUBLE_EQ(confusion.OfClass(1)->f1, 6.0 / 11);
  EXPECT_EQ(confusion.OfClass(1)->support, 7);
  EXPECT_EQ(confusion.OfClass(2)->support, 0);
  EXPECT_FALSE(confusion.OfClass(3).has_value());
}

// Three records: labels {0, 1} said to be {0}, {1} said to be {1}, {} said to be {1}; label 2 occurs nowhere.
TEST(Confusion, LabelsThatEachHoldOrNotByHand) {
  Confusion confusion(3, v1::TASK_MULTI_LABEL);
  confusion.Add(0, 0, 1, 0);
  confusion.Add(1, kNone, 1, 0);
  confusion.Add(1, 1, 1, 0);
  confusion.Add(kNone, 1, 1, 0);
  confusion.Add(kNone, kNone, 2, 0);
  confusion.Add(kNone, kNone, 1, 1);
  EXPECT_EQ(confusion.records(), 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kAccuracy), 1.0 / 3);
  // In all TP 2, FP 1, FN 1. Label 0: 1; label 1: TP 1, FP 1, FN 1; label 2: 0, which counts.
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMicroF1), 4.0 / 6);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMicroPrecision), 2.0 / 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMicroRecall), 2.0 / 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMacroF1), (1 + 0.5 + 0) / 3);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kMacroPrecision), (1 + 0.5 + 0) / 3);
  EXPECT_EQ(confusion.OfClass(1)->support, 2);
  EXPECT_EQ(confusion.OfClass(2)->support, 0);
}

TEST(Confusion, HiddenTokensByHand) {
  Confusion confusion(kJudgements, v1::TASK_MASKED_LM);
  confusion.Add(kRight, kRight, 3, 3, 3 * std::log(2.0));
  confusion.Add(kRight, kWrong, 1, 1, std::log(16.0));
  confusion.Add(kRight, kWrong, 1, 0, std::log(4.0));
  EXPECT_EQ(confusion.records(), 5);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kAccuracy), 3.0 / 5);
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kTopK), 4.0 / 5);
  // 2^((3 + 4 + 2) / 5).
  EXPECT_DOUBLE_EQ(confusion.Value(Metric::kPerplexity), std::pow(2.0, 9.0 / 5));
  for (const Metric metric : kMetrics) {
    const bool has = metric == Metric::kAccuracy || metric == Metric::kTopK || metric == Metric::kPerplexity;
    EXPECT_EQ(HasMetric(v1::TASK_MASKED_LM, metric), has) << MetricName(metric);
  }
  EXPECT_FALSE(HasMetric(v1::TASK_CLASSIFICATION, Metric::kPerplexity));
}

TEST(IsPredicted, AboveOneHalf) {
  EXPECT_FALSE(IsPredicted(0.5f));
  EXPECT_TRUE(IsPredicted(0.50001f));
}

TEST(RankOf, EqualValuesInTheirOrder) {
  const std::vector<float> values = {0.2f, 0.5f, 0.2f, 0.1f};
  EXPECT_EQ(RankOf(values, 1), 0);
  EXPECT_EQ(RankOf(values, 0), 1);
  EXPECT_EQ(RankOf(values, 2), 2);
  EXPECT_EQ(RankOf(values, 3), 3);
}

TEST(ArgMax, FirstOfEqualValues) {
  EXPECT_EQ(ArgMax({0.1f, 0.7f, 0.2f}), 1);
  EXPECT_EQ(ArgMax({0.4f, 0.4f, 0.2f}), 0);
}

}  // namespace
}  // namespace polystill::evaluation
