#pragma once

#include <cstdint>
#include <vector>

namespace polystill::corpus {

// The order in which one pass visits the records of one language: blocks are permuted, then records are shuffled inside
// windows of consecutive permuted blocks. Memory grows with the blocks; a position costs O(log blocks). Immutable.
class PassOrder {
 public:
  struct Place {
    int block = 0;
    int64_t row = 0;
  };

  // `block_records`: records of each block, at least 1 each. A window takes blocks until it holds `window` records or
  // more. `key`: decides the order.
  PassOrder(const std::vector<int64_t>& block_records, int64_t window, uint64_t key);

  // 0 <= position < the number of records.
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

}  // namespace polystill::corpus
