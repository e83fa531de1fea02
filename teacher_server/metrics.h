#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/metrics.h"
#include "runtime/mutex.h"
#include "teacher_server/label_task.h"

namespace polystill::teacher_server {

// What became of a question to the label cache: on the disk, another's who computes it, to be computed, refused as torn
// or foreign (and to be computed).
enum class CacheLookup { kHit, kShared, kMiss, kRefused };

// What a teacher server counts; docs/metrics.md lists the names. Thread-safe.
class TeacherMetrics {
 public:
  // `metrics` outlives this.
  explicit TeacherMetrics(Metrics* metrics);

  // Tenants that are counted by name; the others together, as "other".
  static constexpr size_t kMaxTenants = 64;

  // What waits now.
  void Waiting(v1::Priority priority, const Load& load);
  // A request's time in the queue.
  void Queued(double seconds);
  // A batch went through the model.
  void Computed(int64_t records, int64_t tokens, double seconds);
  // A request was answered.
  void Answered(const absl::Status& status);
  // With so many labels (records times outputs) of so many bytes.
  void Labelled(v1::Priority priority, const std::string& tenant, int64_t labels, int64_t bytes);
  // The label cache was asked; it holds so many bytes, and has dropped so many since the last call.
  void CacheLookedUp(CacheLookup lookup);
  void CacheHolds(int64_t bytes, int64_t dropped);
  // A process that computes was started again.
  void BackendRestarted() { backend_restarts_.Increment(); }

 private:
  // Of requests of a priority.
  struct OfPriority {
    prometheus::Gauge& queue_records;
    prometheus::Gauge& queue_tokens;
    prometheus::Counter& labels;
  };

  OfPriority& Of(v1::Priority priority) { return priority == v1::PRIORITY_TRAINING ? training_ : on_demand_; }

  prometheus::Family<prometheus::Gauge>& queue_records_;
  prometheus::Family<prometheus::Gauge>& queue_tokens_;
  prometheus::Family<prometheus::Counter>& labels_;
  prometheus::Family<prometheus::Counter>& tenant_labels_;
  OfPriority training_;
  OfPriority on_demand_;
  prometheus::Histogram& queue_seconds_;
  prometheus::Histogram& batch_records_;
  prometheus::Histogram& batch_tokens_;
  prometheus::Histogram& compute_seconds_;
  prometheus::Counter& label_bytes_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Counter>& cache_lookups_;
  prometheus::Counter& cache_hits_;
  prometheus::Counter& cache_shared_;
  prometheus::Counter& cache_misses_;
  prometheus::Counter& cache_refused_;
  prometheus::Gauge& cache_bytes_;
  prometheus::Counter& cache_dropped_bytes_;
  prometheus::Counter& backend_restarts_;

  Mutex mutex_;
  std::set<std::string> tenants_ ABSL_GUARDED_BY(mutex_);  // those counted by name
};

}  // namespace polystill::teacher_server
