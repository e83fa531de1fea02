#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace polystill::collectives {

// The c10d key-value store at which the ranks of a generation find each other. One process hosts it for a whole run;
// every generation uses its own prefix of keys. Once a group is formed it is not needed any more. Thread-safe.
class StoreServer {
 public:
  // Listens on `host` alone (a name or an address of this machine, [::1] as in host:port, or 0.0.0.0) at `port`; 0: any
  // free one. INVALID_ARGUMENT when the host is not this machine's, ALREADY_EXISTS when the port is in use.
  static absl::StatusOr<std::unique_ptr<StoreServer>> Start(const std::string& host, int port = 0);
  ~StoreServer();

  int port() const;

 private:
  struct State;
  explicit StoreServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::collectives
