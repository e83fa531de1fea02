#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

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

  // Begins to delete, in the background, the keys of generations that are over: those whose whole name, the prefix in
  // front, `is_over` tells, on another thread. A rank that still waits for one of them waits until its own time-out.
  // Nothing where an earlier deletion goes on.
  void Forget(std::function<bool(const std::string& key)> is_over);
  std::vector<std::string> Keys() const;

 private:
  struct State;
  explicit StoreServer(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace polystill::collectives
