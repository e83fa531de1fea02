#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill::evaluation {

// Median time of one call on some texts, in milliseconds.
struct Latency {
  // From token ids to logits.
  double forward_ms = 0;
  // From the texts to logits; unset for a model that reads token ids.
  std::optional<double> text_ms;
};

// "batch_1", "batch_32": texts of a call -> their time.
using Latencies = std::map<std::string, Latency>;

// The file of latencies, JSON: {MODEL: {BATCH: {forward_ms, text_ms}}}. Written atomically; the errors name the file.
absl::Status WriteLatencies(const std::map<std::string, Latencies>& models, const std::string& path);
// NOT_FOUND; DATA_LOSS when it is no such file.
absl::StatusOr<std::map<std::string, Latencies>> ReadLatencies(const std::string& path);

}  // namespace polystill::evaluation
