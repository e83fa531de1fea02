#include "corpus/language_sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

struct Case {
  const char* name;
  std::vector<int64_t> quotas;
};

std::vector<Case> Cases() {
  return {{"one", {1}},
          {"one_language", {1000}},
          {"two_equal", {500, 500}},
          {"skewed", {1, 5, 994}},
          {"many", std::vector<int64_t>(60, 17)},
          {"long", {40'000, 1, 20'000, 5'535, 3}}};
}

std::vector<uint64_t> Offsets(size_t count, uint64_t key) {
  std::vector<uint64_t> offsets;
  for (size_t i = 0; i < count; ++i) offsets.push_back(CombineKey(key, i));
  return offsets;
}

// The whole cycle by sorting, as the definition says.
std::vector<LanguageSequence::Slot> Sorted(const std::vector<int64_t>& quotas, const std::vector<uint64_t>& offsets) {
  std::vector<std::tuple<uint64_t, int, int64_t>> places;
  for (size_t l = 0; l < quotas.size(); ++l) {
    for (int64_t k = 0; k < quotas[l]; ++k) {
      const unsigned __int128 numerator = (static_cast<unsigned __int128>(k) << 64) + offsets[l];
      places.emplace_back(static_cast<uint64_t>(numerator / quotas[l]), l, k);
    }
  }
  std::sort(places.begin(), places.end());
  std::vector<LanguageSequence::Slot> slots;
  slots.reserve(places.size());
  for (const auto& [place, language, ordinal] : places) slots.push_back({language, ordinal});
  return slots;
}

class LanguageSequenceTest : public testing::TestWithParam<Case> {};

TEST_P(LanguageSequenceTest, AnyStretchIsThatOfTheSortedCycle) {
  const std::vector<int64_t>& quotas = GetParam().quotas;
  for (const auto& offsets : {Offsets(quotas.size(), 1), std::vector<uint64_t>(quotas.size(), 0),
                              std::vector<uint64_t>(quotas.size(), ~uint64_t{0})}) {
    const LanguageSequence sequence(quotas, offsets);
    const std::vector<LanguageSequence::Slot> expected = Sorted(quotas, offsets);
    const int64_t total = static_cast<int64_t>(expected.size());
    EXPECT_TRUE(sequence.Slots(0, total) == expected);
    for (int64_t first = 0; first < total; first += 1 + total / 97) {
      const int64_t count = std::min<int64_t>(13, total - first);
      const auto part = sequence.Slots(first, count);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), expected.begin() + first, expected.begin() + first + count))
          << "from " << first;
    }
    EXPECT_TRUE(sequence.Slots(total, 0).empty());
  }
}

// At every point of the cycle a language has had its even share, but for less than one record.
TEST_P(LanguageSequenceTest, EveryLanguageIsSpreadEvenly) {
  const std::vector<int64_t>& quotas = GetParam().quotas;
  const LanguageSequence sequence(quotas, Offsets(quotas.size(), 2));
  int64_t total = 0;
  for (const int64_t quota : quotas) total += quota;
  std::vector<int64_t> drawn(quotas.size());
  int64_t position = 0;
  for (const auto& slot : sequence.Slots(0, total)) {
    EXPECT_EQ(slot.ordinal, drawn[slot.language]);
    ++drawn[slot.language];
    ++position;
    const double share = static_cast<double>(position) * quotas[slot.language] / total;
    // The sum over languages of such differences shifts the common clock by at most their number.
    ASSERT_LE(std::abs(drawn[slot.language] - share),
              1.0 + static_cast<double>(quotas.size()) * quotas[slot.language] / total);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LanguageSequenceTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace polystill::corpus
