#include "corpus/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace polystill::corpus {
namespace {

using testing::ElementsAre;

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

}  // namespace
}  // namespace polystill::corpus
