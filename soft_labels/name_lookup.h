#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::soft_labels {

// Numeric addresses of a host, of any family; those of IPv6 without brackets.
using HostAddresses = absl::StatusOr<std::vector<std::string>>;

// Finds the addresses behind a host name and calls `then` with them once, from any thread, later or never.
using NameLookup = std::function<void(const std::string& host, std::function<void(HostAddresses)> then)>;

// A NameLookup by the system's resolver (getaddrinfo: /etc/hosts, DNS): those of the families that this machine has an
// address of. UNAVAILABLE with the resolver's words. Each call has a thread of its own that nobody waits for, since the
// resolver may take as long as its time-outs: `then` must hold whatever it touches.
void LookUp(const std::string& host, std::function<void(HostAddresses)> then);

}  // namespace polystill::soft_labels
