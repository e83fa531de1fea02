#include "soft_labels/backoff.h"

#include <algorithm>

#include "runtime/counter_rng.h"

namespace polystill::soft_labels {

int64_t BackoffMs(const BackoffOptions& options, int attempt, uint64_t key) {
  int64_t pause = std::min(options.first_ms, options.max_ms);
  for (int i = 0; i < attempt && pause < options.max_ms; ++i) pause = std::min(2 * pause, options.max_ms);
  return std::max<int64_t>(1, static_cast<int64_t>(pause * (0.5 + 0.5 * UniformOpen(key, attempt))));
}

}  // namespace polystill::soft_labels
