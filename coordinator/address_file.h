#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill::coordinator {

// Where the coordinator of a run answers: <folder>/coordinator.address. The file outlives a coordinator that is killed,
// and another run may listen on its port later: hence `run_id`, which requests carry.
//
//   HOST:PORT
//   RUN_ID
struct CoordinatorAddress {
  // host:port.
  std::string address;
  // Drawn by a coordinator when it starts; that of the one before where that was killed, and this one goes on.
  std::string run_id;
  bool operator==(const CoordinatorAddress&) const = default;
};

// Replaces what is there.
absl::Status WriteAddressFile(const std::string& path, const CoordinatorAddress& address);
// NOT_FOUND, or DATA_LOSS: not those two lines; names the file.
absl::StatusOr<CoordinatorAddress> ReadAddressFile(const std::string& path);
// Takes `own` away; the address of another, which has written its own since, stays.
void RemoveAddressFile(const std::string& path, const CoordinatorAddress& own);

}  // namespace polystill::coordinator
