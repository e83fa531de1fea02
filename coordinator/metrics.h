#pragma once

#include <prometheus/gauge.h>

#include "polystill/v1/coordinator.pb.h"
#include "runtime/metrics.h"

namespace polystill::coordinator {

// Where a run stands, for Prometheus; docs/metrics.md lists the names. Gauges all: a resumed run goes on from what its
// checkpoint had counted. Not thread-safe; Prometheus may read meanwhile.
class RunMetrics {
 public:
  // `metrics` outlives this.
  explicit RunMetrics(Metrics* metrics);

  void Observe(const v1::RunStatus& status);

 private:
  using Gauges = prometheus::Family<prometheus::Gauge>;
  Gauges& state_;
  Gauges& done_;
  Gauges& todo_;
  Gauges& seconds_;
  Gauges& waiting_;
  Gauges& slow_;
  Gauges& evicted_;
  Gauges& loss_;
  Gauges& examples_;
  Gauges& labels_;
  Gauges& label_bytes_;
};

}  // namespace polystill::coordinator
