#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <cstdint>

#include "absl/status/status.h"
#include "runtime/metrics.h"

namespace polystill::teacher_server {

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
};

}  // namespace polystill::teacher_server
