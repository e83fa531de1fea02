#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/metrics.h"

namespace polystill::teacher_server {

// What became of a question to the label cache: on the disk, another's who computes it, to be computed, refused as torn
// or foreign (and to be computed).
enum class CacheLookup { kHit, kShared, kMiss, kRefused };

// What a teacher server counts; docs/metrics.md lists the names. Thread-safe.
class TeacherMetrics {
 public:
  // `metrics` outlives this.
  explicit TeacherMetrics(Metrics* metrics);

  // What waits now.
  void Waiting(int64_t records, int64_t tokens);
  // A request's time in the queue.
  void Queued(double seconds);
  // A batch went through the model.
  void Computed(int64_t records, int64_t tokens, double seconds);
  // A request was answered: with so many labels (records times outputs) of so many bytes, or with an error.
  void Answered(const absl::Status& status, int64_t labels, int64_t bytes);
  // The label cache was asked; it holds so many bytes, and has dropped so many since the last call.
  void CacheLookedUp(CacheLookup lookup);
  void CacheHolds(int64_t bytes, int64_t dropped);

 private:
  prometheus::Gauge& queue_records_;
  prometheus::Gauge& queue_tokens_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& batch_records_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& compute_seconds_;
  prometheus::Counter& labels_;
  prometheus::Counter& label_bytes_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& cache_lookups_;
  prometheus::Counter& cache_hits_;
  prometheus::Counter& cache_shared_;
  prometheus::Counter& cache_misses_;
  prometheus::Counter& cache_refused_;
  prometheus::Gauge& cache_bytes_;
  prometheus::Counter& cache_dropped_bytes_;
};

}  // namespace polystill::teacher_server
