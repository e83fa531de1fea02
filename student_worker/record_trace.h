#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::student_worker {

// Writes down what a worker does, to prove that every planned record counts exactly once (tests/chaos/checker.py). One
// JSON object a line, each in the kernel's hands when its call returns, so that a worker that is killed leaves no
// more than one torn line, its last:
//
//   {"event": "agreed", "job": "distilled", "generation": 3, "rank": 0, "at": 1763776543.125, "world_size": 2,
//    "steps": 17, "digest": "..", "from_generation": 2, "from_checkpoint": false}
//   {"event": "slice", .., "world_size": 2, "step": 17, "digest": SHA-256 of the ids joined by "\n", "ids": [..]}
//   {"event": "applied", .., "step": 17, "loss": 0.5}
//   {"event": "done", .., "steps": 18, "weights_digest": ".."}
//
// `at`: Unix time, seconds. A step of the plan is counted from 0: that of `slice` and `applied` leads from a state of
// `step` steps to one more.
//
// Not thread-safe. Every call: RESOURCE_EXHAUSTED names the file.
class RecordTrace {
 public:
  // PERMISSION_DENIED names the file.
  static absl::StatusOr<std::unique_ptr<RecordTrace>> Open(const std::string& path);

  // Who the lines from now on are of: a rank of a generation.
  void Enter(const std::string& job, int64_t generation, int rank, int world_size);

  // All ranks hold one state of so many steps, which was made in `from_generation`. Before any of them works.
  absl::Status Agreed(int64_t steps, const std::string& digest, int64_t from_generation, bool from_checkpoint);
  // This rank's records of a step. Before its gradients are reduced.
  absl::Status Slice(int64_t step, const std::vector<std::string>& ids);
  // The optimiser has run. `loss`: mean per record of the slice.
  absl::Status Applied(int64_t step, double loss);
  // The job's last step has been applied.
  absl::Status Done(int64_t steps, const std::string& weights_digest);

 private:
  struct Fields;

  explicit RecordTrace(const std::string& path);
  absl::Status Write(const char* event, const Fields& fields);

  const std::string path_;
  std::ofstream file_;
  std::string job_;
  int64_t generation_ = 0;
  int rank_ = 0;
  int world_size_ = 0;
};

}  // namespace polystill::student_worker
