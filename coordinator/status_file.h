#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// How far a run is, for those who look when no coordinator runs any more: a RunStatus as JSON, replaced atomically at
// every new stage, after each twentieth of one, and at the end. It is no part of what the run needs: a
// write that fails is logged. Not thread-safe.
class StatusFile {
 public:
  explicit StatusFile(std::string path) : path_(std::move(path)) {}

  void Observe(const v1::RunStatus& status);

 private:
  const std::string path_;
  v1::RunStatus written_;
};

// NOT_FOUND, or DATA_LOSS: not a status; names the file.
absl::StatusOr<v1::RunStatus> ReadStatusFile(const std::string& path);

// A status as one JSON object, with a line's end.
std::string StatusJson(const v1::RunStatus& status);

}  // namespace polystill::coordinator
