#include "corpus/block_cache.h"

#include <gtest/gtest.h>

namespace polystill::corpus {
namespace {

BlockCache::Records BlockOf(size_t bytes) {
  std::vector<Record> records(1);
  records[0].text = std::string(bytes, 'x');
  return std::make_shared<const std::vector<Record>>(std::move(records));
}

TEST(BlockCacheTest, TheLeastRecentlyUsedGoesFirst) {
  BlockCache cache(4000);
  for (int block = 0; block < 3; ++block) cache.Put({0, block}, BlockOf(900));
  ASSERT_NE(cache.Get({0, 0}), nullptr);
  cache.Put({1, 0}, BlockOf(900));
  EXPECT_NE(cache.Get({0, 0}), nullptr);
  EXPECT_EQ(cache.Get({0, 1}), nullptr);
  EXPECT_NE(cache.Get({0, 2}), nullptr);
  EXPECT_NE(cache.Get({1, 0}), nullptr);
  EXPECT_LE(cache.bytes(), 4000);
}

TEST(BlockCacheTest, TheNewestIsHeldWhateverItsSize) {
  BlockCache cache(1000);
  cache.Put({0, 0}, BlockOf(500));
  cache.Put({0, 1}, BlockOf(5000));
  EXPECT_EQ(cache.Get({0, 0}), nullptr);
  EXPECT_NE(cache.Get({0, 1}), nullptr);
}

TEST(BlockCacheTest, PuttingAgainReplaces) {
  BlockCache cache(10'000);
  cache.Put({0, 0}, BlockOf(500));
  const int64_t once = cache.bytes();
  cache.Put({0, 0}, BlockOf(500));
  EXPECT_EQ(cache.bytes(), once);
}

}  // namespace
}  // namespace polystill::corpus
