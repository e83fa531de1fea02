#pragma once

#include <cstdint>

namespace polystill::soft_labels {

struct BackoffOptions {
  // Pause before the first retry, and the longest pause. Milliseconds.
  int64_t first_ms = 100;
  int64_t max_ms = 2'000;
};

// Milliseconds to pause before retry `attempt` (counted from 0): first_ms doubled each time up to max_ms, times a
// factor in (0.5, 1) drawn from `key`, so that callers with different keys do not come back all at once.
int64_t BackoffMs(const BackoffOptions& options, int attempt, uint64_t key);

}  // namespace polystill::soft_labels
