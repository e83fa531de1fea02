#pragma once

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>

#include "absl/status/status.h"

namespace polystill {

// The metrics of a process, and where Prometheus reads them: GET http://HOST:PORT/metrics, in its text format. Names
// follow its rules: base units (seconds, bytes), `_total` for counters. Thread-safe.
class Metrics {
 public:
  Metrics() : registry_(std::make_shared<prometheus::Registry>()) {}
  ~Metrics();

  // New families, which live as long as this.
  prometheus::Family<prometheus::Counter>& AddCounters(const char* name, const char* help);
  prometheus::Family<prometheus::Gauge>& AddGauges(const char* name, const char* help);
  prometheus::Family<prometheus::Histogram>& AddHistograms(const char* name, const char* help);

  // Answers from now on at host:port (IPv4; port 0: any free one), where `insecure` is needed off loopback, as
  // everywhere. Logs the address. Call once. INVALID_ARGUMENT; UNAVAILABLE, with the cause, when it cannot listen
  // there.
  absl::Status Listen(const std::string& address, bool insecure);

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  std::string host_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

// From 100 microseconds to 100 seconds.
prometheus::Histogram::BucketBoundaries SecondsBuckets();

// Powers of two up to 65,536.
prometheus::Histogram::BucketBoundaries SizeBuckets();

}  // namespace polystill
