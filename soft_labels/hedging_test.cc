#include "soft_labels/hedging.h"

#include <gtest/gtest.h>

#include <optional>

namespace polystill::soft_labels {
namespace {

TEST(HedgingTest, DueAfterThePercentileOfItsSize) {
  struct Case {
    const char* name;
    Hedging::Options options;
    int64_t tokens;
    int times;                   // 10, 20, ... milliseconds
    std::optional<int64_t> due;  // of a request of 1000 tokens
  };
  const Case cases[] = {
      {"too few", {}, 1'000, 19, std::nullopt},
      {"twenty: the nineteenth, and one more", {}, 1'000, 20, 191},
      {"hundred", {}, 1'000, 100, 951},
      {"another percentile", {.percentile = 0.5}, 1'000, 100, 501},
      {"all", {.percentile = 1}, 1'000, 20, 201},
      {"the least", {.least_ms = 5'000}, 1'000, 20, 5'000},
      {"fewer are enough", {.least_samples = 2, .least_ms = 1}, 1'000, 2, 21},
      {"the same power of two", {}, 512, 20, 191},
      {"a size above", {}, 1'024, 20, std::nullopt},
      {"a size below", {}, 511, 20, std::nullopt},
  };
  for (const Case& c : cases) {
    Hedging hedging(c.options);
    for (int i = 1; i <= c.times; ++i) hedging.Took(c.tokens, 10 * i);
    EXPECT_EQ(hedging.DueAfterMs(1'000), c.due) << c.name;
  }
}

TEST(HedgingTest, OldTimesAreForgotten) {
  Hedging hedging({.least_ms = 1});
  for (int i = 0; i < 1'000; ++i) hedging.Took(10, 7'000);
  EXPECT_EQ(hedging.DueAfterMs(10), 7'001);
  for (int i = 0; i < 256; ++i) hedging.Took(10, 30);
  EXPECT_EQ(hedging.DueAfterMs(10), 31);
}

TEST(HedgingTest, NoMoreThanItsShare) {
  struct Case {
    Hedging::Options options;
    int requests;
    int hedges;
  };
  const Case cases[] = {
      {{.share = 0.05}, 19, 0},  {{.share = 0.05}, 21, 1},      {{.share = 0.05}, 205, 10},
      {{.share = 0.25}, 8, 2},   {{.share = 0.05}, 10'000, 16},  // what is saved up
      {{.share = 0}, 10'000, 0},
  };
  for (const Case& c : cases) {
    Hedging hedging(c.options);
    for (int i = 0; i < c.requests; ++i) hedging.Asked();
    int hedges = 0;
    for (; hedging.MayHedge(); ++hedges) hedging.Hedged();
    EXPECT_EQ(hedges, c.hedges) << c.requests;
  }
  Hedging hedging({});
  int hedges = 0;
  for (int i = 0; i < 10'000; ++i) {
    hedging.Asked();
    if (!hedging.MayHedge()) continue;
    hedging.Hedged();
    ++hedges;
  }
  EXPECT_LE(hedges, 500);
  EXPECT_GE(hedges, 470);
}

}  // namespace
}  // namespace polystill::soft_labels
