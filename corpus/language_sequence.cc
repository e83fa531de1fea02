#include "corpus/language_sequence.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <tuple>
#include <utility>

namespace polystill::corpus {

using Wide = unsigned __int128;

LanguageSequence::LanguageSequence(std::vector<int64_t> quotas, std::vector<uint64_t> offsets)
    : quotas_(std::move(quotas)),
      offsets_(std::move(offsets)),
      positions_(std::accumulate(quotas_.begin(), quotas_.end(), int64_t{0})) {}

uint64_t LanguageSequence::PlaceOf(int language, int64_t ordinal) const {
  return static_cast<uint64_t>(((static_cast<Wide>(ordinal) << 64) + offsets_[language]) /
                               static_cast<Wide>(quotas_[language]));
}

int64_t LanguageSequence::CountBefore(int language, uint64_t place) const {
  // PlaceOf(k) < place just where k * 2^64 + u < place * n, all in whole numbers.
  const Wide bound = static_cast<Wide>(place) * static_cast<Wide>(quotas_[language]);
  if (bound <= offsets_[language]) return 0;
  return static_cast<int64_t>((bound - offsets_[language] - 1) >> 64) + 1;
}

std::vector<LanguageSequence::Slot> LanguageSequence::Slots(int64_t first, int64_t count) const {
  const int languages = static_cast<int>(quotas_.size());
  // Before this place there are at most `first` slots, and at least first - 2 * languages - 1: a language's count
  // differs from its even share by less than one.
  const uint64_t place =
      static_cast<uint64_t>((static_cast<Wide>(std::max<int64_t>(first - languages, 0)) << 64) / positions_);
  using Next = std::tuple<uint64_t, int, int64_t>;  // place, language, ordinal; ties go to the first language
  std::priority_queue<Next, std::vector<Next>, std::greater<>> next;
  int64_t position = 0;
  const auto push = [&](int language, int64_t ordinal) {
    if (ordinal < quotas_[language]) next.emplace(PlaceOf(language, ordinal), language, ordinal);
  };
  for (int language = 0; language < languages; ++language) {
    const int64_t before = CountBefore(language, place);
    position += before;
    push(language, before);
  }
  std::vector<Slot> slots;
  slots.reserve(count);
  for (; position < first + count; ++position) {
    const auto [at, language, ordinal] = next.top();
    next.pop();
    if (position >= first) slots.push_back({language, ordinal});
    push(language, ordinal + 1);
  }
  return slots;
}

}  // namespace polystill::corpus
