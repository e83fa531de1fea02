#pragma once

#include <string>
#include <string_view>

namespace polystill {

// "host" of "host:port"; of IPv6 with its brackets, "[::1]".
std::string HostOf(std::string_view address);

// "::1" of "[::1]", as system calls take it; other hosts as they are.
std::string WithoutBrackets(std::string_view host);

// Whether a host is a name that is looked up, such as "gpu1" or "labels.example.org": no numeric address, nor anything
// that gRPC alone understands ("unix", with a path).
bool IsHostName(std::string_view host);

// Whether a host names the machine itself alone: localhost, 127.0.0.0/8, [::1].
bool IsLoopback(std::string_view host);

// Whether a host names every address of the machine: a server can listen there, but nobody can connect to it.
bool IsWildcard(std::string_view host);

}  // namespace polystill
