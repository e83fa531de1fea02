#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "corpus/block_sections.h"

namespace polystill::corpus {

// The order of the records of a stretch of a pass: its blocks are permuted, then records are shuffled inside windows of
// consecutive permuted blocks, the last of which may be smaller. Memory grows with the stretch's blocks; a position
// costs O(log blocks). Immutable.
class PassStretch {
 public:
  struct Place {
    // Index into language.blocks.
    int block = 0;
    // Among the block's records.
    int64_t row = 0;
  };

  // Blocks of a language, and the records of each.
  using Blocks = std::vector<std::pair<int32_t, uint32_t>>;

  // `first`: position in the pass. A window takes blocks until it holds `window` records or more. `key`: decides the
  // order.
  PassStretch(const Blocks& blocks, int64_t first, int64_t window, uint64_t key);

  bool Holds(int64_t position) const { return starts_.front() <= position && position < starts_.back(); }

  // Of a position of the pass that it holds.
  Place At(int64_t position) const;

 private:
  uint64_t key_;
  // The blocks in this pass's order, and the position at which each starts; one more at the end.
  std::vector<int32_t> blocks_;
  std::vector<int64_t> starts_;
  // Ordinals of the blocks that start a window, and the positions at which they start; one more at the end.
  std::vector<int32_t> window_blocks_;
  std::vector<int64_t> window_starts_;
};

// The order in which one pass visits the records of one language, exactly once each:
// 1. the sections of its blocks are permuted;
// 2. consecutive permuted sections make a stretch, as many as it takes to hold kStretchWindows windows;
// 3. each stretch orders its blocks and records by itself (PassStretch).
// So the blocks of a section are visited in one stretch. Where there is one section the stretch is the whole pass.
//
// Memory grows with the sections. Immutable.
class PassOrder {
 public:
  // A stretch's last window is the only one that may be smaller than asked for.
  static constexpr int64_t kStretchWindows = 8;

  // `sections` must outlive the order. `window`: records, at least 1. `key`: decides the order.
  PassOrder(const BlockSections& sections, int64_t window, uint64_t key);

  // The stretch that holds the position; 0 <= position < the number of records. Costs O(blocks of the stretch).
  PassStretch StretchAt(int64_t position) const;

 private:
  const BlockSections& sections_;
  int64_t window_;
  uint64_t key_;
  // The sections in this pass's order.
  std::vector<int32_t> order_;
  // Ordinals of the sections that start a stretch, and the positions at which they start; one more at the end.
  std::vector<int32_t> stretch_sections_;
  std::vector<int64_t> stretch_starts_;
};

}  // namespace polystill::corpus
