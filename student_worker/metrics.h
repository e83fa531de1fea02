#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>

#include <string>

#include "runtime/metrics.h"
#include "soft_labels/client.h"
#include "student_worker/batch.h"

namespace polystill::student_worker {

// What a worker counts; docs/metrics.md lists the names. Not thread-safe; Prometheus may read meanwhile.
class WorkerMetrics {
 public:
  // `metrics` outlives this.
  explicit WorkerMetrics(Metrics* metrics);

  // A step was applied. `batch`: this worker's slice of it; `wait_seconds`: how long the step loop waited for it.
  void Stepped(const std::string& job, const Batch& batch, double loss, double wait_seconds);
  // Its own work of a step, lately.
  void TookOwnSeconds(const std::string& job, double seconds);
  // `counts`: of this job's teachers since the step before. `prefetch`: steps that are got ready ahead.
  void Asked(const soft_labels::LabelClient::Counts& counts, int prefetch);

 private:
  prometheus::Counter& data_wait_seconds_;
  prometheus::Counter& labels_;
  prometheus::Counter& label_bytes_;
  prometheus::Counter& requests_;
  prometheus::Counter& hedges_;
  prometheus::Counter& hedge_wins_;
  prometheus::Counter& retries_;
  prometheus::Counter& refused_replicas_;
  prometheus::Gauge& prefetch_;
  prometheus::Family<prometheus::Counter>& examples_;
  prometheus::Family<prometheus::Counter>& steps_;
  prometheus::Family<prometheus::Gauge>& loss_;
  prometheus::Family<prometheus::Gauge>& own_seconds_;
};

}  // namespace polystill::student_worker
