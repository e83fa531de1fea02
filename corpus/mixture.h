#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace polystill::corpus {

// How often each language is drawn, exactly, over a cycle of steps.
struct Quotas {
  // Steps of a cycle, of batch_size positions each.
  int64_t steps = 0;
  // Positions of the cycle that each language gets; at least 1. They add up to steps * batch_size.
  std::vector<int64_t> positions;
};

// Shares in proportion to records (proportional) or records^(1/tau) (temperature), by largest remainder, ties to the
// first. A cycle has at least 65,536 positions, and as many as it takes for every language to get one.
// INVALID_ARGUMENT for tau below 1.
absl::StatusOr<Quotas> MakeQuotas(const v1::Mixture& mixture, const std::vector<int64_t>& records, int64_t batch_size);

}  // namespace polystill::corpus
