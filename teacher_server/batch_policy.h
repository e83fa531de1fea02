#pragma once

#include <chrono>
#include <cstdint>
#include <span>

namespace polystill::teacher_server {

using Time = std::chrono::steady_clock::time_point;

// When waiting requests become a batch.
struct BatchLimits {
  // Tokens of a batch, at most, unless one request alone has more.
  int64_t max_tokens = 65'536;
  // Records of a batch, at most, unless one request alone has more: few, since a batch takes one thread,
  // which is no faster with more, and is answered as a whole. A GPU wants more.
  int64_t max_rows = 64;
  // Bytes of the answers of the batches that are computed at once in memory, as float32, at most.
  int64_t max_bytes = 256 << 20;
  // Forwards run on this many rows: a batch that is a multiple wastes none.
  int64_t row_multiple = 32;
  // How long a request waits, while a thread is free, for company that fills a forward. While none is free all wait, so
  // that a busy server's batches are full anyway.
  std::chrono::microseconds max_delay{0};
};

// A request in the queue, the oldest first.
struct QueuedRequest {
  int64_t rows;
  int64_t tokens;
  Time arrival;
  int64_t bytes = 0;  // of its answer
};

struct BatchDecision {
  enum class Reason { kWait, kFull, kRows, kDelay };
  Reason reason = Reason::kWait;
  // Requests to take from the front; 0 with kWait.
  size_t take = 0;
  // kWait: when to decide anew, unless another request comes first.
  Time until = Time::max();
};

// A pure function of the queue and the time. Requests are taken in order, whole:
//   kRows    some of them together are a multiple of row_multiple: the most that are;
//   kFull    no more fit: all that do;
//   kDelay   the oldest has waited max_delay: all that fit.
BatchDecision DecideBatch(const BatchLimits& limits, std::span<const QueuedRequest> queue, Time now);

}  // namespace polystill::teacher_server
