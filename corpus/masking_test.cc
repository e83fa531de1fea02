#include "corpus/masking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace polystill::corpus {
namespace {

constexpr int32_t kMask = 7;
constexpr int32_t kVocabulary = 1000;

v1::Masking Usual() {
  v1::Masking masking;
  masking.set_share(0.15);
  masking.set_random(0.1);
  masking.set_keep(0.1);
  return masking;
}

// Ids that a random one is rarely equal to, none of them the mask.
std::vector<int32_t> Row(int length) {
  std::vector<int32_t> ids(length);
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

TEST(MaskingTest, AtMostTheShareRoundedUp) {
  for (const int length : {1, 6, 7, 20, 201}) {
    const auto most = static_cast<size_t>(MostMasked(Usual(), length));
    size_t seen = 0;
    for (uint64_t key = 0; key < 200; ++key) {
      seen = std::max(seen, MaskTokens(Row(length), Usual(), kMask, kVocabulary, key).positions.size());
    }
    EXPECT_EQ(seen, most) << length;
  }
}

TEST(MaskingTest, TargetsAreWhatStoodThereAndTheRestIsUntouched) {
  for (const int length : {1, 2, 7, 200}) {
    const std::vector<int32_t> ids = Row(length);
    const MaskedRow row = MaskTokens(ids, Usual(), kMask, kVocabulary, 5);
    ASSERT_EQ(row.ids.size(), ids.size());
    ASSERT_EQ(row.positions.size(), row.targets.size());
    EXPECT_FALSE(row.positions.empty());
    EXPECT_TRUE(std::is_sorted(row.positions.begin(), row.positions.end()));
    std::vector<int32_t> restored = row.ids;
    for (size_t i = 0; i < row.positions.size(); ++i) restored.at(row.positions[i]) = row.targets[i];
    EXPECT_EQ(restored, ids) << length;
  }
  const MaskedRow empty = MaskTokens({}, Usual(), kMask, kVocabulary, 5);
  EXPECT_TRUE(empty.ids.empty() && empty.positions.empty() && empty.targets.empty());
}

TEST(MaskingTest, FollowsTheKeyAlone) {
  const std::vector<int32_t> ids = Row(60);
  EXPECT_EQ(MaskTokens(ids, Usual(), kMask, kVocabulary, 5).ids, MaskTokens(ids, Usual(), kMask, kVocabulary, 5).ids);
  EXPECT_NE(MaskTokens(ids, Usual(), kMask, kVocabulary, 5).positions,
            MaskTokens(ids, Usual(), kMask, kVocabulary, 6).positions);
}

// Five standard deviations of a binomial count is what the bounds are.
TEST(MaskingTest, SharesAreThoseAskedForAndEveryPlaceHasItsChance) {
  constexpr int kRows = 20'000, kLength = 13;
  const std::vector<int32_t> ids = Row(kLength);
  std::vector<int64_t> judged(kLength);
  double all = 0, masked = 0, kept = 0;
  for (uint64_t key = 0; key < kRows; ++key) {
    const MaskedRow row = MaskTokens(ids, Usual(), kMask, kVocabulary, key);
    for (const int32_t place : row.positions) {
      ++judged[place];
      ++all;
      masked += row.ids[place] == kMask;
      kept += row.ids[place] == ids[place];
    }
  }
  EXPECT_NEAR(all / kRows / kLength, 0.15, 0.003);
  EXPECT_NEAR(masked / all, 0.8 + 0.1 / kVocabulary, 0.01);
  EXPECT_NEAR(kept / all, 0.1 + 0.1 / kVocabulary, 0.008);
  for (const int64_t count : judged) EXPECT_NEAR(static_cast<double>(count) / kRows, 0.15, 0.0127);
}

TEST(MaskingTest, ExtremeShares) {
  v1::Masking masking = Usual();
  masking.set_share(0.001);
  EXPECT_EQ(MaskTokens(Row(3), masking, kMask, kVocabulary, 1).positions.size(), 1u);
  masking.set_share(0.9);
  masking.set_random(0);
  masking.set_keep(0);
  const MaskedRow row = MaskTokens(Row(10), masking, kMask, kVocabulary, 1);
  EXPECT_EQ(row.positions.size(), 9u);
  EXPECT_EQ(std::count(row.ids.begin(), row.ids.end(), kMask), 9);
  masking.set_keep(1);
  EXPECT_EQ(MaskTokens(Row(10), masking, kMask, kVocabulary, 1).ids, Row(10));
}

}  // namespace
}  // namespace polystill::corpus
