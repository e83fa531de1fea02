#include "runtime/metrics.h"

#include <spdlog/spdlog.h>

#include <exception>

#include "absl/strings/str_cat.h"
#include "runtime/address.h"

namespace polystill {

absl::Status Metrics::Listen(const std::string& address, bool insecure) {
  const std::string host(HostOf(address));
  if (host.empty() || host == address) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics ", address, ": write HOST:PORT, e.g. 127.0.0.1:9464"));
  }
  if (!insecure && !IsLoopback(host)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics ", address, " can be reached by others, without TLS; add --insecure if that is meant"));
  }
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/1);
    exposer_->RegisterCollectable(registry_);
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("--metrics ", address, ": cannot listen: ", error.what(), "; is the port in use?"));
  }
  spdlog::info("metrics at http://{}:{}/metrics", host, exposer_->GetListeningPorts().at(0));
  return absl::OkStatus();
}

prometheus::Family<prometheus::Counter>& Metrics::AddCounters(const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_);
}

prometheus::Family<prometheus::Gauge>& Metrics::AddGauges(const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_);
}

prometheus::Family<prometheus::Histogram>& Metrics::AddHistograms(const char* name, const char* help) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry_);
}

prometheus::Histogram::BucketBoundaries SecondsBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double decade = 1e-4; decade < 100; decade *= 10) {
    for (const double step : {1.0, 2.5, 5.0}) bounds.push_back(step * decade);
  }
  return bounds;
}

prometheus::Histogram::BucketBoundaries SizeBuckets() {
  prometheus::Histogram::BucketBoundaries bounds;
  for (double bound = 1; bound <= 65536; bound *= 2) bounds.push_back(bound);
  return bounds;
}

}  // namespace polystill
