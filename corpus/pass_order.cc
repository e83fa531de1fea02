#include "corpus/pass_order.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "corpus/permutation.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

// Words that keep the draws for blocks and for records apart.
constexpr uint64_t kBlockWord = 1;
constexpr uint64_t kRecordWord = 2;

// Fisher and Yates, each draw a function of the key and the counter.
std::vector<int32_t> ShuffledBlocks(size_t count, uint64_t key) {
  std::vector<int32_t> blocks(count);
  std::iota(blocks.begin(), blocks.end(), 0);
  for (size_t i = count; i > 1; --i) std::swap(blocks[i - 1], blocks[Below(CombineKey(key, kBlockWord, i), i)]);
  return blocks;
}

// The last of the ascending `starts` that is not above `position`, searched in [first, last).
int64_t LastNotAbove(const std::vector<int64_t>& starts, int64_t first, int64_t last, int64_t position) {
  return std::upper_bound(starts.begin() + first, starts.begin() + last, position) - starts.begin() - 1;
}

}  // namespace

PassOrder::PassOrder(const std::vector<int64_t>& block_records, int64_t window, uint64_t key)
    : key_(key), blocks_(ShuffledBlocks(block_records.size(), key)) {
  int64_t position = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (window_starts_.empty() || position - window_starts_.back() >= window) {
      window_blocks_.push_back(static_cast<int32_t>(i));
      window_starts_.push_back(position);
    }
    starts_.push_back(position);
    position += block_records[blocks_[i]];
  }
  starts_.push_back(position);
  window_blocks_.push_back(static_cast<int32_t>(blocks_.size()));
  window_starts_.push_back(position);
}

PassOrder::Place PassOrder::At(int64_t position) const {
  const int64_t windows = static_cast<int64_t>(window_starts_.size()) - 1;
  const int64_t window = LastNotAbove(window_starts_, 0, windows, position);
  const int64_t start = window_starts_[window];
  const Permutation shuffle(window_starts_[window + 1] - start, CombineKey(key_, kRecordWord, window));
  const int64_t shuffled = start + static_cast<int64_t>(shuffle(position - start));
  const int64_t at = LastNotAbove(starts_, window_blocks_[window], window_blocks_[window + 1], shuffled);
  return {blocks_[at], shuffled - starts_[at]};
}

}  // namespace polystill::corpus
