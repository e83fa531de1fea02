#include "corpus/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

namespace polystill::corpus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

v1::Mixture Proportional() {
  v1::Mixture mixture;
  mixture.set_kind(v1::Mixture::KIND_PROPORTIONAL);
  return mixture;
}

v1::Mixture Temperature(double tau) {
  v1::Mixture mixture;
  mixture.set_kind(v1::Mixture::KIND_TEMPERATURE);
  mixture.set_tau(tau);
  return mixture;
}

v1::Mixture UniMax(double max_epochs) {
  v1::Mixture mixture;
  mixture.set_kind(v1::Mixture::KIND_UNIMAX);
  mixture.set_max_epochs(max_epochs);
  return mixture;
}

v1::Mixture Weighted(const std::map<std::string, double>& weights) {
  v1::Mixture mixture;
  mixture.set_kind(v1::Mixture::KIND_WEIGHTS);
  mixture.mutable_weights()->insert(weights.begin(), weights.end());
  return mixture;
}

// Languages a, b, c, ... of so many records.
v1::CorpusIndex IndexOf(const std::vector<int64_t>& records) {
  v1::CorpusIndex index;
  for (const int64_t count : records) {
    v1::CorpusIndex::Language* language = index.add_languages();
    language->set_name(std::string(1, static_cast<char>('a' + index.languages_size() - 1)));
    language->set_records(count);
  }
  return index;
}

absl::StatusOr<Quotas> MakeQuotas(const v1::Mixture& mixture, const std::vector<int64_t>& records, int64_t batch_size,
                                  int64_t budget = 0) {
  v1::PlanSegment segment;
  *segment.mutable_mixture() = mixture;
  segment.set_batch_size(static_cast<int32_t>(batch_size));
  segment.set_budget(budget);
  return corpus::MakeQuotas(segment, IndexOf(records));
}

TEST(MixtureTest, SharesAreExactWhereTheyDivide) {
  const Quotas quotas = MakeQuotas(Proportional(), {1, 3, 4}, 64).value();
  EXPECT_EQ(quotas.steps, 1024);
  EXPECT_THAT(quotas.positions, ElementsAre(8192, 24576, 32768));
}

TEST(MixtureTest, LargestRemainderWinsAndTiesGoToTheFirst) {
  // 65,536 = 3 * 21,845 + 1.
  EXPECT_THAT(MakeQuotas(Proportional(), {5, 5, 5}, 1).value().positions, ElementsAre(21846, 21845, 21845));
  // Shares 9362.28, 18724.57 and 37449.14.
  EXPECT_THAT(MakeQuotas(Proportional(), {1, 2, 4}, 1).value().positions, ElementsAre(9362, 18725, 37449));
}

TEST(MixtureTest, TheCycleIsWholeStepsAndGivesEveryLanguageOne) {
  for (const int64_t batch_size : {1, 7, 64, 1000, 100'000}) {
    const Quotas quotas = MakeQuotas(Proportional(), {1, 10'000'000, 35}, batch_size).value();
    EXPECT_GE(quotas.positions[0], 1) << batch_size;
    EXPECT_GE(quotas.steps * batch_size, 10'000'036);
    EXPECT_EQ(std::accumulate(quotas.positions.begin(), quotas.positions.end(), int64_t{0}), quotas.steps * batch_size);
  }
}

TEST(MixtureTest, TemperatureFlattens) {
  const std::vector<int64_t> records = {100, 10'000, 1'000'000};
  const std::vector<int64_t> one = MakeQuotas(Temperature(1), records, 64).value().positions;
  EXPECT_EQ(one, MakeQuotas(Proportional(), records, 64).value().positions);
  const std::vector<int64_t> two = MakeQuotas(Temperature(2), records, 64).value().positions;
  EXPECT_NEAR(static_cast<double>(two[2]) / two[0], 100.0, 0.5);
  const std::vector<int64_t> flat = MakeQuotas(Temperature(1000), records, 64).value().positions;
  EXPECT_NEAR(static_cast<double>(flat[2]) / flat[0], std::pow(1e4, 1e-3), 1e-3);
}

TEST(MixtureTest, RefusesTauBelowOne) {
  for (const double tau : {0.0, 0.5, -1.0, std::nan("")}) {
    EXPECT_EQ(MakeQuotas(Temperature(tau), {1}, 1).status().code(), absl::StatusCode::kInvalidArgument) << tau;
  }
}

// Shares by the algorithm worked out by hand; 65,536 positions a cycle where the batch size divides it.
TEST(MixtureTest, UniMaxIsAsEvenAsTheCapsAllow) {
  const struct {
    double max_epochs;
    std::vector<int64_t> records;
    int64_t budget;
    std::vector<double> shares;  // in records
  } cases[] = {
      // No cap binds: all equal, whatever the sizes.
      {4, {100, 10'000, 1'000}, 300, {100, 100, 100}},
      // The smallest is capped at 4 * 100, the others share the rest.
      {4, {100, 10'000, 1'000}, 6'400, {400, 3'000, 3'000}},
      // Two are capped.
      {4, {100, 10'000, 1'000}, 10'000, {400, 5'600, 4'000}},
      // All are: the budget is shortened to what there is, which is proportional.
      {4, {100, 10'000, 1'000}, 1'000'000, {400, 40'000, 4'000}},
      {0.5, {100, 10'000, 1'000}, 1'000'000, {50, 5'000, 500}},
      // Equal languages, and one alone.
      {1, {10, 10, 10, 10}, 20, {5, 5, 5, 5}},
      {1, {10}, 5, {5}},
      // Less than a record each.
      {1, {10, 10}, 1, {0.5, 0.5}},
  };
  for (const auto& test : cases) {
    const Quotas quotas = MakeQuotas(UniMax(test.max_epochs), test.records, 64, test.budget).value();
    const double sum = std::accumulate(test.shares.begin(), test.shares.end(), 0.0);
    const auto positions = static_cast<double>(quotas.steps * 64);
    ASSERT_EQ(quotas.positions.size(), test.shares.size());
    for (size_t i = 0; i < test.shares.size(); ++i) {
      EXPECT_NEAR(static_cast<double>(quotas.positions[i]), test.shares[i] / sum * positions, 1)
          << "budget " << test.budget << ", language " << i;
    }
    EXPECT_EQ(std::accumulate(quotas.positions.begin(), quotas.positions.end(), int64_t{0}), quotas.steps * 64);
  }
}

TEST(MixtureTest, UniMaxNeedsABudget) {
  EXPECT_EQ(MakeQuotas(UniMax(4), {1, 2}, 1).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(MixtureTest, MostRecordsAreThoseOfTheCaps) {
  EXPECT_EQ(MostRecords(UniMax(4), IndexOf({100, 10})), 440);
  EXPECT_EQ(MostRecords(UniMax(0.25), IndexOf({10, 10})), 5);
  EXPECT_EQ(MostRecords(UniMax(1e-6), IndexOf({10})), 1);
  EXPECT_EQ(MostRecords(Proportional(), IndexOf({10})), INT64_MAX);
}

TEST(MixtureTest, WeightsAreTakenAsTheyAre) {
  const std::vector<int64_t> quotas =
      MakeQuotas(Weighted({{"a", 0.1}, {"b", 0.3}, {"c", 0.4}}), {9, 1, 5}, 64)->positions;
  EXPECT_THAT(quotas, ElementsAre(8192, 24576, 32768));
  EXPECT_EQ(MakeQuotas(Weighted({{"a", 1e9}, {"b", 3e9}, {"c", 4e9}}), {9, 1, 5}, 64)->positions, quotas);
}

TEST(MixtureTest, WeightsMustNameTheLanguages) {
  const struct {
    std::map<std::string, double> weights;
    const char* message;
  } cases[] = {
      {{{"a", 1}}, "does not name b, which has 7 records"},
      {{{"a", 1}, {"b", 1}, {"x", 1}}, "mixture.weights.x: no record is of it"},
      {{{"a", 1}, {"b", 0}}, "mixture.weights.b is not above 0"},
      {{{"a", 1}, {"b", std::nan("")}}, "mixture.weights.b is not above 0"},
      {{{"a", 1}, {"b", INFINITY}}, "mixture.weights.b is not above 0"},
      {{}, "does not name a"},
  };
  for (const auto& test : cases) {
    const absl::Status status = MakeQuotas(Weighted(test.weights), {5, 7}, 64).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

}  // namespace
}  // namespace polystill::corpus
