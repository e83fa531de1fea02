#pragma once

#include <cstdint>
#include <vector>

namespace polystill::corpus {

// Which language each position of a cycle draws from. The k-th of a language's n positions stands at (k + u) / n of the
// cycle, u in [0, 1) the language's own, so that each language is spread evenly; the cycle is these sorted.
//
// Nothing is held: any stretch of a cycle is found in O(languages + length) steps of a heap, whatever the cycle's
// length.
class LanguageSequence {
 public:
  // `quotas`: positions of each language, at least 1. `offsets`: u of each, in units of 2^-64.
  LanguageSequence(std::vector<int64_t> quotas, std::vector<uint64_t> offsets);

  struct Slot {
    int language = 0;
    // Which of the language's positions in this cycle.
    int64_t ordinal = 0;

    bool operator==(const Slot&) const = default;
  };
  // The positions [first, first + count) of the cycle.
  std::vector<Slot> Slots(int64_t first, int64_t count) const;

 private:
  // Where the slot stands, in units of 2^-64 of the cycle.
  uint64_t PlaceOf(int language, int64_t ordinal) const;
  // How many of the language's slots stand before `place`.
  int64_t CountBefore(int language, uint64_t place) const;

  const std::vector<int64_t> quotas_;
  const std::vector<uint64_t> offsets_;
  int64_t positions_ = 0;
};

}  // namespace polystill::corpus
