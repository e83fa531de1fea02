#include "corpus/pass_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "corpus/permutation.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

constexpr int64_t kMostRecords = std::numeric_limits<int64_t>::max();

using Records = std::vector<int64_t>;               // of each block
using Pass = std::vector<std::pair<int, int64_t>>;  // block and row of each position

BlockSections SectionsOf(const Records& records) {
  v1::CorpusIndex::Language language;
  for (const int64_t n : records) language.add_blocks()->set_records(n);
  return BlockSections(language);
}

// Blocks of [least, most] records.
Records Unequal(int blocks, int64_t least, int64_t most) {
  Records records;
  for (int i = 0; i < blocks; ++i) records.push_back(least + static_cast<int64_t>(Below(Mix64(i), most - least + 1)));
  return records;
}

int64_t Sum(const Records& records) {
  int64_t sum = 0;
  for (const int64_t n : records) sum += n;
  return sum;
}

template <typename T>
void Shuffle(std::vector<T>* items, uint64_t key, uint64_t word) {
  for (size_t i = items->size(); i > 1; --i) std::swap((*items)[i - 1], (*items)[Below(CombineKey(key, word, i), i)]);
}

// The pass laid out whole, record by record, as the comments of BlockSections, PassOrder and PassStretch say it.
Pass LaidOut(const Records& records, int64_t window, uint64_t key) {
  const size_t count = records.size() <= 256 ? 1 : static_cast<size_t>(std::sqrt(records.size()));
  std::vector<std::vector<int>> sections(count);
  for (size_t block = 0; block < records.size(); ++block) sections[block % count].push_back(static_cast<int>(block));
  Shuffle(&sections, key, 3);
  Pass pass;
  uint64_t stretches = 0;
  for (size_t next = 0; next < count; ++stretches) {
    std::vector<int> blocks;
    for (int64_t held = 0; next < count && (held == 0 || held / 8 < window); ++next) {
      for (const int block : sections[next]) held += records[block];
      blocks.insert(blocks.end(), sections[next].begin(), sections[next].end());
    }
    const uint64_t of_stretch = count == 1 ? key : CombineKey(key, 4, stretches);
    Shuffle(&blocks, of_stretch, 1);
    uint64_t windows = 0;
    for (size_t at = 0; at < blocks.size(); ++windows) {
      Pass unshuffled;
      for (; at < blocks.size() && (unshuffled.empty() || static_cast<int64_t>(unshuffled.size()) < window); ++at) {
        for (int64_t row = 0; row < records[blocks[at]]; ++row) unshuffled.emplace_back(blocks[at], row);
      }
      const Permutation permutation(std::max<size_t>(unshuffled.size(), 1), CombineKey(of_stretch, 2, windows));
      for (size_t i = 0; i < unshuffled.size(); ++i) pass.push_back(unshuffled[permutation(i)]);
    }
  }
  return pass;
}

// Walks the pass from its beginning.
Pass Walked(const PassOrder& order, int64_t records) {
  Pass pass;
  std::optional<PassStretch> stretch;
  for (int64_t position = 0; position < records; ++position) {
    if (!stretch.has_value() || !stretch->Holds(position)) stretch = order.StretchAt(position);
    const PassStretch::Place place = stretch->At(position);
    pass.emplace_back(place.block, place.row);
  }
  return pass;
}

struct Case {
  const char* name;
  Records records;
  int64_t window;
};

std::vector<Case> Cases() {
  Records some_empty = Unequal(1500, 0, 3);
  some_empty.front() = some_empty.back() = 0;
  Records one_large = Unequal(1100, 1, 2);
  one_large[700] = 20'000;
  // Of 36 sections the first, a third and the last hold nothing.
  Records empty_sections = Unequal(1300, 1, 9);
  for (size_t block = 0; block < empty_sections.size(); ++block) {
    if (block % 36 == 0 || block % 36 == 12 || block % 36 == 35) empty_sections[block] = 0;
  }
  return {
      {"one_record", {1}, 65'536},
      {"few_blocks", {50, 1, 300, 7}, 100},
      {"as_many_as_are_not_divided", Unequal(256, 1, 9), 50},
      {"as_few_as_are_divided", Unequal(257, 1, 9), 50},
      {"equal_blocks", Records(2000, 8), 40},
      {"unequal_blocks", Unequal(3000, 1, 40), 100},
      {"sections_of_equal_length", Records(1600, 5), 64},
      {"windows_of_one_record", Unequal(1200, 1, 4), 1},
      {"windows_of_many_sections", Unequal(2000, 1, 3), 500},
      {"one_window", Unequal(1100, 1, 5), 1'000'000},
      {"the_largest_window", Unequal(1100, 1, 5), kMostRecords},
      {"a_block_beyond_all_others", std::move(one_large), 30},
      {"empty_blocks", std::move(some_empty), 20},
      {"empty_sections", std::move(empty_sections), 20},
  };
}

class PassOrderPropertyTest : public testing::TestWithParam<Case> {};

TEST_P(PassOrderPropertyTest, IsThePassLaidOutWhole) {
  const BlockSections sections = SectionsOf(GetParam().records);
  const int64_t records = Sum(GetParam().records);
  for (uint64_t key = 0; key < 3; ++key) {
    const Pass whole = LaidOut(GetParam().records, GetParam().window, key);
    const PassOrder order(sections, GetParam().window, key);
    ASSERT_EQ(Walked(order, records), whole);
    // Nor does it matter where one begins.
    for (uint64_t i = 0; i < 100; ++i) {
      const auto position = static_cast<int64_t>(Below(CombineKey(key, i), records));
      const PassStretch stretch = order.StretchAt(position);
      ASSERT_TRUE(stretch.Holds(position));
      const PassStretch::Place place = stretch.At(position);
      ASSERT_EQ(std::pair(place.block, place.row), whole[position]) << "position " << position;
    }
  }
}

TEST_P(PassOrderPropertyTest, VisitsEachRecordOnce) {
  const BlockSections sections = SectionsOf(GetParam().records);
  Pass pass = Walked(PassOrder(sections, GetParam().window, 9), Sum(GetParam().records));
  std::sort(pass.begin(), pass.end());
  Pass all;
  for (size_t block = 0; block < GetParam().records.size(); ++block) {
    for (int64_t row = 0; row < GetParam().records[block]; ++row) all.emplace_back(block, row);
  }
  EXPECT_EQ(pass, all);
}

// A block is read for a window and not again: its records stand no further apart.
TEST_P(PassOrderPropertyTest, ABlockIsNeededInOneWindow) {
  const Records& records = GetParam().records;
  const int64_t largest = *std::max_element(records.begin(), records.end());
  const BlockSections sections = SectionsOf(records);
  const Pass pass = Walked(PassOrder(sections, GetParam().window, 5), Sum(records));
  std::vector<int64_t> first(records.size(), -1);
  for (size_t position = 0; position < pass.size(); ++position) {
    int64_t& of_block = first[pass[position].first];
    if (of_block < 0) of_block = static_cast<int64_t>(position);
    ASSERT_LT(static_cast<int64_t>(position) - of_block - largest, GetParam().window)
        << "block " << pass[position].first;
  }
}

INSTANTIATE_TEST_SUITE_P(All, PassOrderPropertyTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

double ChiSquare(const std::vector<double>& counts, double expected) {
  double sum = 0;
  for (const double count : counts) sum += (count - expected) * (count - expected) / expected;
  return sum;
}

// At the beginning, in the middle and at the end of a pass each block stands equally often, over passes.
TEST(PassOrderTest, EveryBlockIsEquallyLikelyAnywhere) {
  constexpr int kBlocks = 1100, kSize = 10, kKeys = 22'000;
  const BlockSections sections = SectionsOf(Records(kBlocks, kSize));
  ASSERT_EQ(sections.count(), 33);
  for (const int64_t position : {0, 1, kBlocks * kSize / 2, kBlocks * kSize - 1}) {
    std::vector<double> counts(kBlocks);
    for (uint64_t key = 0; key < kKeys; ++key) {
      ++counts[PassOrder(sections, 40, CombineKey(key, 1)).StretchAt(position).At(position).block];
    }
    // 99.99% quantile of 1099 degrees of freedom.
    EXPECT_LT(ChiSquare(counts, static_cast<double>(kKeys) / kBlocks), 1282) << "position " << position;
  }
}

// Blocks of other sizes too land in each tenth of a pass equally often, and each pass has an order of its own: where a
// block stands in one says nothing of the next.
TEST(PassOrderTest, ABlockLandsAnywhereInEachPass) {
  constexpr int kPasses = 2000;
  const Records records = Unequal(1100, 1, 3);
  const BlockSections sections = SectionsOf(records);
  const auto total = static_cast<size_t>(Sum(records));
  struct Seen {
    std::vector<double> tenths = std::vector<double>(10);
    std::vector<double> pairs = std::vector<double>(100);
    size_t last = 0;
  };
  std::map<int, Seen> seen;
  for (const int block : {0, 1, 32, 33, 500, 777, 1098, 1099}) seen[block];
  for (uint64_t key = 0; key < kPasses; ++key) {
    const Pass pass = Walked(PassOrder(sections, 12, CombineKey(key, 2)), static_cast<int64_t>(total));
    for (size_t position = 0; position < total; ++position) {
      const auto found = seen.find(pass[position].first);
      if (found == seen.end() || pass[position].second != 0) continue;
      const size_t tenth = position * 10 / total;
      ++found->second.tenths[tenth];
      ++found->second.pairs[found->second.last * 10 + tenth];
      found->second.last = tenth;
    }
  }
  // 99.99% quantiles of 9 and of 99 degrees of freedom.
  for (const auto& [block, of_block] : seen) {
    EXPECT_LT(ChiSquare(of_block.tenths, kPasses / 10.0), 33.8) << "block " << block;
    EXPECT_LT(ChiSquare(of_block.pairs, kPasses / 100.0), 160.1) << "block " << block;
  }
}

TEST(BlockSectionsTest, HoldsEveryBlockOnce) {
  for (const int blocks : {0, 1, 256, 257, 288, 289, 290, 5000}) {
    const Records records = Unequal(blocks, 1, 1000);
    const BlockSections sections = SectionsOf(records);
    EXPECT_EQ(sections.count(), blocks <= 256 ? 1 : static_cast<int>(std::sqrt(blocks)));
    Records found(blocks);
    for (int section = 0; section < sections.count(); ++section) {
      int64_t sum = 0;
      const auto of_section = sections.blocks(section);
      for (size_t i = 0; i < of_section.size(); ++i) {
        sum += of_section[i];
        ASSERT_EQ(std::exchange(found[sections.BlockAt(section, static_cast<int>(i))], of_section[i]), 0);
      }
      EXPECT_EQ(sections.records(section), sum);
    }
    EXPECT_EQ(found, records) << blocks;
  }
}

TEST(BlockSectionsTest, HoldsBlocksOfUpTo32Bits) {
  const Records records = {0xffff'ffff, 1, 0x8000'0000};
  const BlockSections sections = SectionsOf(records);
  EXPECT_EQ(sections.records(0), 0xffff'ffff + int64_t{1} + 0x8000'0000);
  std::map<int, int64_t> rows;
  const PassStretch stretch = PassOrder(sections, 1, 7).StretchAt(0);
  for (uint64_t i = 0; i < 1000; ++i) {
    const auto place = stretch.At(static_cast<int64_t>(Below(Mix64(i), sections.records(0))));
    ASSERT_LT(place.row, records[place.block]);
    rows[place.block] = std::max(rows[place.block], place.row);
  }
  EXPECT_GT(rows[0], 0xf000'0000);
}

}  // namespace
}  // namespace polystill::corpus
