#include "soft_labels/hedging.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace polystill::soft_labels {
namespace {

size_t SizeOf(int64_t tokens) { return std::bit_width(static_cast<uint64_t>(std::max<int64_t>(tokens, 1))) - 1; }

// The least of `values` that at least the share `percentile` of them do not exceed.
int64_t Percentile(std::vector<int64_t> values, double percentile) {
  const double rank = std::ceil(percentile * static_cast<double>(values.size()));
  const auto nth = values.begin() + static_cast<ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

}  // namespace

void Hedging::Asked() { saved_ = std::min(saved_ + options_.share, options_.most_saved); }

void Hedging::Took(int64_t tokens, int64_t ms) {
  Size& size = sizes_[SizeOf(tokens)];
  if (size.last_ms.size() < kRemembered) {
    size.last_ms.push_back(ms);
  } else {
    size.last_ms[size.next++ % kRemembered] = ms;
  }
  if (size.last_ms.size() < options_.least_samples) return;
  // Longer than the percentile: one millisecond more.
  size.due_ms = std::max(Percentile(size.last_ms, options_.percentile) + 1, options_.least_ms);
}

std::optional<int64_t> Hedging::DueAfterMs(int64_t tokens) const { return sizes_[SizeOf(tokens)].due_ms; }

}  // namespace polystill::soft_labels
