#include "soft_labels/backoff.h"

#include <gtest/gtest.h>

#include <limits>
#include <set>

namespace polystill::soft_labels {
namespace {

TEST(BackoffTest, DoublesUpToItsCapWithinTheJitter) {
  struct Case {
    int attempt;
    int64_t full_ms;
  };
  for (const Case& c :
       {Case{0, 100}, {1, 200}, {2, 400}, {3, 800}, {4, 1600}, {5, 2000}, {6, 2000}, {1'000'000, 2000}}) {
    for (uint64_t key = 0; key < 50; ++key) {
      const int64_t pause = BackoffMs({.first_ms = 100, .max_ms = 2000}, c.attempt, key);
      EXPECT_GE(pause, c.full_ms / 2) << c.attempt;
      EXPECT_LE(pause, c.full_ms) << c.attempt;
      EXPECT_EQ(pause, BackoffMs({.first_ms = 100, .max_ms = 2000}, c.attempt, key));
    }
  }
}

TEST(BackoffTest, SpreadsCallers) {
  std::set<int64_t> pauses;
  for (uint64_t key = 0; key < 100; ++key) pauses.insert(BackoffMs({}, 5, key));
  EXPECT_GT(pauses.size(), 60u);
}

TEST(BackoffTest, IsNeverZeroAndNeverOverflows) {
  EXPECT_EQ(BackoffMs({.first_ms = 0, .max_ms = 0}, 3, 1), 1);
  const int64_t huge = std::numeric_limits<int64_t>::max() / 4;
  EXPECT_GT(BackoffMs({.first_ms = 1, .max_ms = huge}, 200, 1), huge / 4);
}

}  // namespace
}  // namespace polystill::soft_labels
