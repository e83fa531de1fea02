#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::student_worker {

// Writes down which records each step took, to prove that every planned record counts exactly once: one JSON object a
// line, appended and flushed,
//
//   {"job": "distilled", "generation": 3, "step": 17, "rank": 0, "digest": SHA-256 of the ids joined by "\n", "ids":
//   [..]}
//
// Not thread-safe.
class RecordTrace {
 public:
  // PERMISSION_DENIED names the file.
  static absl::StatusOr<std::unique_ptr<RecordTrace>> Open(const std::string& path);

  absl::Status Append(const std::string& job, int64_t generation, int64_t step, int rank,
                      const std::vector<std::string>& ids);

 private:
  explicit RecordTrace(const std::string& path);

  const std::string path_;
  std::ofstream file_;
};

}  // namespace polystill::student_worker
