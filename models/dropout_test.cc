#include "models/dropout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"

namespace polystill::models {
namespace {

TEST(DropoutTest, KeepsAtTheRateAndKeepsTheMean) {
  for (const double rate : {0.1, 0.5, 0.9}) {
    const int64_t count = 1000 * 64;
    const at::Tensor mask = DropoutMask({7}, {0, 1000}, 64, rate, 0, at::kDouble);
    const double kept = mask.ne(0).sum().item<double>();
    EXPECT_NEAR(kept, count * (1 - rate), 5 * std::sqrt(count * rate * (1 - rate))) << rate;
    // One value where kept, whose product with the share that is kept is 1.
    EXPECT_NEAR(mask.max().item<double>(), 1 / (1 - rate), 2e-5 / (1 - rate) / (1 - rate)) << rate;
    EXPECT_EQ(mask.eq(mask.max()).sum().item<double>(), kept) << rate;
  }
}

TEST(DropoutTest, AnElementDependsOnItsKeySiteAndPlaceAlone) {
  for (const int64_t width : {8, 5}) {
    SCOPED_TRACE(absl::StrCat("width ", width));
    const at::Tensor both = DropoutMask({1, 2}, {0, 9, 13}, width, 0.5, 3, at::kFloat);
    const at::Tensor alone = DropoutMask({2}, {0, 4}, width, 0.5, 3, at::kFloat);
    EXPECT_TRUE(at::equal(both.narrow(0, 9, 4), alone));
    EXPECT_TRUE(at::equal(alone.to(at::kDouble), DropoutMask({2}, {0, 4}, width, 0.5, 3, at::kDouble)));
    const at::Tensor longer = DropoutMask({2}, {0, 20}, width, 0.5, 3, at::kFloat);
    EXPECT_TRUE(at::equal(longer.narrow(0, 0, 4), alone));
  }
}

// Shares of equal elements: a half unless two masks, or two places of one, go together.
TEST(DropoutTest, KeysSitesAndNeighboursAreIndependent) {
  const auto mask = [](uint64_t key, uint64_t site) {
    return DropoutMask({key}, {0, 500}, 32, 0.5, site, at::kFloat).flatten().ne(0);
  };
  const at::Tensor one = mask(1, 0);
  const auto expect_half = [](const at::Tensor& a, const at::Tensor& b) {
    const auto count = static_cast<double>(a.numel());
    EXPECT_NEAR(a.eq(b).sum().item<double>(), count / 2, 5 * std::sqrt(count) / 2);
  };
  expect_half(one, mask(2, 0));
  expect_half(one, mask(1, 1));
  for (const int64_t shift : {1, 2, 4, 32}) {
    expect_half(one.narrow(0, 0, 15000), one.narrow(0, shift, 15000));
  }
}

}  // namespace
}  // namespace polystill::models
