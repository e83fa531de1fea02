#pragma once

#include <algorithm>
#include <cstdint>

namespace polystill::losses {

// Rows of logits that are computed with at once (losses/chunks.h): so many that their numbers are about kChunkNumbers,
// but kLeastRows as long as that is not more than 8 times as many, so that a head's weight is not read for a few rows
// each time.
inline constexpr int64_t kChunkNumbers = int64_t{2} << 20;
inline constexpr int64_t kLeastRows = 32;

constexpr int64_t RowsOfChunk(int64_t classes) {
  const int64_t least = std::min(kLeastRows, 8 * kChunkNumbers / classes);
  return std::max<int64_t>({1, kChunkNumbers / classes, least});
}

}  // namespace polystill::losses
