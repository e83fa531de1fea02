#include "corpus/permutation.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace polystill::corpus {
namespace {

TEST(PermutationTest, VisitsEveryPositionOnce) {
  std::vector<uint64_t> sizes;
  for (uint64_t size = 1; size <= 300; ++size) sizes.push_back(size);
  for (const uint64_t size : {65'535, 65'536, 65'537, 100'003}) sizes.push_back(size);
  for (const uint64_t size : sizes) {
    const Permutation permutation(size, size * 31);
    std::vector<bool> seen(size);
    for (uint64_t position = 0; position < size; ++position) {
      const uint64_t image = permutation(position);
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[image]) << "size " << size << ", position " << position;
      seen[image] = true;
    }
  }
}

TEST(PermutationTest, TakesSizesBeyond32Bits) {
  const uint64_t size = (uint64_t{1} << 50) + 12'345;
  const Permutation permutation(size, 1);
  std::set<uint64_t> images;
  for (uint64_t position = 0; position < 10'000; ++position) {
    const uint64_t image = permutation(position);
    ASSERT_LT(image, size);
    images.insert(image);
  }
  EXPECT_EQ(images.size(), 10'000u);
}

// Over many keys every position goes everywhere equally often: chi-square below its 99.99% quantile, also where the
// network is tiny.
TEST(PermutationTest, EveryImageIsEquallyLikely) {
  struct Case {
    uint64_t size;
    double quantile;  // of chi-square with size - 1 degrees of freedom
  };
  for (const Case& c : {Case{2, 15.1}, Case{3, 18.4}, Case{5, 23.5}, Case{8, 29.9}, Case{37, 79.5}}) {
    for (const uint64_t position : {uint64_t{0}, c.size / 2, c.size - 1}) {
      constexpr int kKeys = 20'000;
      std::vector<double> counts(c.size);
      for (uint64_t key = 0; key < kKeys; ++key) ++counts[Permutation(c.size, CombineKey(key))(position)];
      const double expected = static_cast<double>(kKeys) / static_cast<double>(c.size);
      double chi_square = 0;
      for (const double count : counts) chi_square += (count - expected) * (count - expected) / expected;
      EXPECT_LT(chi_square, c.quantile) << "size " << c.size << ", position " << position;
    }
  }
}

// A permutation of three is one of six, each equally likely: the images do not hang together.
TEST(PermutationTest, EveryOrderOfThreeIsEquallyLikely) {
  constexpr int kKeys = 24'000;
  double counts[27] = {};
  for (uint64_t key = 0; key < kKeys; ++key) {
    const Permutation permutation(3, CombineKey(key, 9));
    ++counts[permutation(0) * 9 + permutation(1) * 3 + permutation(2)];
  }
  double chi_square = 0;
  int orders = 0;
  for (const double count : counts) {
    if (count == 0) continue;
    ++orders;
    chi_square += (count - kKeys / 6.0) * (count - kKeys / 6.0) / (kKeys / 6.0);
  }
  EXPECT_EQ(orders, 6);
  EXPECT_LT(chi_square, 25.7);  // 99.99% quantile of 5 degrees of freedom
}

}  // namespace
}  // namespace polystill::corpus
