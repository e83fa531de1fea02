#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::teacher_server {

using Time = std::chrono::steady_clock::time_point;

// The labels that a request asked for: one for each of its spec's outputs.
using Answer = std::vector<v1::SoftLabels>;

// Who asks, and how long for.
struct Requester {
  // A valid one (runtime/tenant.h).
  std::string tenant = {};
  Time deadline = Time::max();
  // Set by the caller when nobody waits for the answer any more; may be null.
  std::shared_ptr<const std::atomic<bool>> cancelled = {};
};

// A valid request on its way to the model.
struct LabelTask {
  v1::LabelRequest request = {};
  Requester requester = {};
  // Tokens of all its records, at most: a text's are known only when it has been tokenised.
  int64_t tokens = 0;
  // Bytes of its answer in memory.
  int64_t answer_bytes = 0;
  Time arrival = {};
  // Called exactly once, by a thread of the batcher's (or its destructor); must not block.
  std::function<void(absl::StatusOr<Answer>)> done = {};
};

// What waits, or a part of it.
struct Load {
  int64_t records = 0;
  int64_t tokens = 0;
  // Memory of the requests.
  int64_t bytes = 0;
};

}  // namespace polystill::teacher_server
