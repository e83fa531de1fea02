#include "teacher_server/batch_policy.h"

namespace polystill::teacher_server {

BatchDecision DecideBatch(const BatchLimits& limits, std::span<const QueuedRequest> queue, Time now) {
  using Reason = BatchDecision::Reason;
  if (queue.empty()) return {};
  size_t fit = 0;    // requests that fit into the limits
  size_t whole = 0;  // the most of them whose rows fill their forwards
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t bytes = 0;
  for (; fit < queue.size(); ++fit) {
    rows += queue[fit].rows;
    tokens += queue[fit].tokens;
    bytes += queue[fit].bytes;
    if (fit > 0 && (rows > limits.max_rows || tokens > limits.max_tokens || bytes > limits.max_bytes)) break;
    if (rows % limits.row_multiple == 0) whole = fit + 1;
  }
  if (whole > 0) return {Reason::kRows, whole};
  if (fit < queue.size()) return {Reason::kFull, fit};
  const Time until = queue.front().arrival + limits.max_delay;
  if (until <= now) return {Reason::kDelay, fit};
  return {Reason::kWait, 0, until};
}

}  // namespace polystill::teacher_server
