#include "corpus/pass_order.h"

#include <algorithm>
#include <numeric>

#include "corpus/permutation.h"
#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

// Words that keep the draws for blocks, records, sections and stretches apart.
constexpr uint64_t kBlockWord = 1;
constexpr uint64_t kRecordWord = 2;
constexpr uint64_t kSectionWord = 3;
constexpr uint64_t kStretchWord = 4;

// Fisher and Yates; each draw is CombineKey(key, word, i).
std::vector<int32_t> Shuffled(size_t count, uint64_t key, uint64_t word) {
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  const uint64_t prefix = CombineKey(key, word);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[Below(Mix64(prefix ^ Mix64(i)), i)]);
  return order;
}

// The last of the ascending `starts` that is not above `position`, searched in [first, last).
int64_t LastNotAbove(const std::vector<int64_t>& starts, int64_t first, int64_t last, int64_t position) {
  return std::upper_bound(starts.begin() + first, starts.begin() + last, position) - starts.begin() - 1;
}

}  // namespace

PassStretch::PassStretch(const Blocks& blocks, int64_t first, int64_t window, uint64_t key) : key_(key) {
  blocks_.reserve(blocks.size());
  starts_.reserve(blocks.size() + 1);
  int64_t position = first;
  for (const int32_t at : Shuffled(blocks.size(), key, kBlockWord)) {
    if (window_starts_.empty() || position - window_starts_.back() >= window) {
      window_blocks_.push_back(static_cast<int32_t>(blocks_.size()));
      window_starts_.push_back(position);
    }
    blocks_.push_back(blocks[at].first);
    starts_.push_back(position);
    position += blocks[at].second;
  }
  starts_.push_back(position);
  window_blocks_.push_back(static_cast<int32_t>(blocks_.size()));
  window_starts_.push_back(position);
}

PassStretch::Place PassStretch::At(int64_t position) const {
  const int64_t windows = static_cast<int64_t>(window_starts_.size()) - 1;
  const int64_t window = LastNotAbove(window_starts_, 0, windows, position);
  const int64_t start = window_starts_[window];
  const Permutation shuffle(window_starts_[window + 1] - start, CombineKey(key_, kRecordWord, window));
  const int64_t shuffled = start + static_cast<int64_t>(shuffle(position - start));
  const int64_t at = LastNotAbove(starts_, window_blocks_[window], window_blocks_[window + 1], shuffled);
  return {blocks_[at], shuffled - starts_[at]};
}

PassOrder::PassOrder(const BlockSections& sections, int64_t window, uint64_t key)
    : sections_(sections), window_(window), key_(key), order_(Shuffled(sections.count(), key, kSectionWord)) {
  int64_t position = 0;
  for (size_t i = 0; i < order_.size(); ++i) {
    // Divided, since a window may be as large as an int64.
    if (stretch_starts_.empty() || (position - stretch_starts_.back()) / kStretchWindows >= window) {
      stretch_sections_.push_back(static_cast<int32_t>(i));
      stretch_starts_.push_back(position);
    }
    position += sections.records(order_[i]);
  }
  stretch_sections_.push_back(static_cast<int32_t>(order_.size()));
  stretch_starts_.push_back(position);
}

PassStretch PassOrder::StretchAt(int64_t position) const {
  const int64_t stretches = static_cast<int64_t>(stretch_starts_.size()) - 1;
  const int64_t stretch = LastNotAbove(stretch_starts_, 0, stretches, position);
  PassStretch::Blocks blocks;
  for (int32_t i = stretch_sections_[stretch]; i < stretch_sections_[stretch + 1]; ++i) {
    const std::span<const uint32_t> records = sections_.blocks(order_[i]);
    for (size_t k = 0; k < records.size(); ++k) {
      blocks.emplace_back(sections_.BlockAt(order_[i], static_cast<int>(k)), records[k]);
    }
  }
  // A pass of one section keeps the order that it had before there were sections (algorithm 1).
  const uint64_t key = sections_.count() == 1 ? key_ : CombineKey(key_, kStretchWord, stretch);
  return PassStretch(blocks, stretch_starts_[stretch], window_, key);
}

}  // namespace polystill::corpus
