#include "models/row_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "models/model.h"
#include "runtime/counter_rng.h"

namespace polystill::models {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(RowGroupsTest, Lengths) {
  struct Case {
    int64_t length, bucket, in_training, rows_on_cpu, tokens_on_cpu;
  };
  const Case cases[] = {{0, 8, 8, 32, 256},      {1, 8, 8, 32, 256},      {8, 8, 8, 32, 256},
                        {9, 16, 16, 16, 256},    {24, 24, 24, 10, 256},   {64, 64, 64, 4, 256},
                        {65, 80, 72, 3, 256},    {129, 160, 136, 2, 256}, {256, 256, 256, 2, 256},
                        {257, 320, 264, 2, 512}, {512, 512, 512, 2, 512}, {513, 640, 520, 2, 1024}};
  for (const Case& c : cases) {
    EXPECT_EQ(LengthBucket(c.length), c.bucket) << c.length;
    EXPECT_EQ(TrainingLength(c.length), c.in_training) << c.length;
    EXPECT_EQ(RowsPerForward(LengthBucket(c.length), c10::kCPU), c.rows_on_cpu) << c.length;
    EXPECT_EQ(TokensPerForward(c.length, c10::kCPU), c.tokens_on_cpu) << c.length;
  }
  EXPECT_EQ(RowsPerForward(512, c10::kCUDA), 16);
  EXPECT_EQ(TokensPerForward(512, c10::kCUDA), 8192);
}

TEST(RowGroupsTest, ByRows) {
  EXPECT_THAT(GroupByRows({9, 9, 9, 9, 9}, 2), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4)));
  EXPECT_THAT(GroupByRows({}, 2), IsEmpty());
}

TEST(RowGroupsTest, ByBucket) {
  EXPECT_THAT(GroupByBucket({128, 3, 120, 8, 128}, c10::kCPU),
              ElementsAre(ElementsAre(1, 3), ElementsAre(0, 2), ElementsAre(4)));
}

TEST(RowGroupsTest, ByTokens) {
  // The longest first, each into the first group with room; 300 tokens are of another size of forward.
  EXPECT_THAT(GroupByTokens({100, 200, 50, 300, 156, 7, 5}, c10::kCPU),
              ElementsAre(ElementsAre(3), ElementsAre(1, 2, 6), ElementsAre(4, 0), ElementsAre(5)));
  EXPECT_THAT(GroupByTokens(std::vector<int64_t>(33, 0), c10::kCPU).size(), 2);  // no more than 32 rows
  EXPECT_THAT(GroupByTokens({}, c10::kCPU), IsEmpty());
}

TEST(RowGroupsTest, ByCost) {
  EXPECT_THAT(GroupByCost({8, 16, 8}), ElementsAre(ElementsAre(0, 1, 2)));  // 16 tokens of padding are cheaper
  EXPECT_THAT(GroupByCost({8, 128, 9, 120}), ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3)));
  EXPECT_THAT(GroupByCost({}), IsEmpty());
}

// Each way of grouping some thousand rows of a corpus' lengths: every row is in one group, and little is wasted.
TEST(RowGroupsTest, EveryRowIsInOneGroupAndGroupsAreFull) {
  std::vector<int64_t> lengths;
  int64_t tokens = 0;
  for (uint64_t row = 0; row < 1024; ++row) {
    lengths.push_back(CombineKey(4, row) % 120 + 1);
    tokens += lengths.back();
  }
  const auto check = [&](const RowGroups& groups, auto cost_of, double at_most) {
    std::vector<int64_t> seen;
    int64_t cost = 0;
    for (const auto& group : groups) {
      seen.insert(seen.end(), group.begin(), group.end());
      int64_t longest = 0;
      for (const int64_t row : group) longest = std::max(longest, lengths[row]);
      cost += cost_of(group, longest);
    }
    std::sort(seen.begin(), seen.end());
    std::vector<int64_t> all(lengths.size());
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(seen, all);
    EXPECT_LT(static_cast<double>(cost), at_most * static_cast<double>(tokens));
  };
  const auto filled = [](const auto&, int64_t) { return int64_t{256}; };
  check(GroupByTokens(lengths, c10::kCPU), filled, 1.01);
  const auto padded = [](const auto& group, int64_t longest) { return longest * static_cast<int64_t>(group.size()); };
  check(GroupByBucket(lengths, c10::kCPU), padded, 1.1);
  check(GroupByCost(lengths), padded, 1.1);
}

}  // namespace
}  // namespace polystill::models
