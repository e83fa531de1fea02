#include "runtime/address.h"

namespace polystill {

std::string HostOf(std::string_view address) { return std::string(address.substr(0, address.rfind(':'))); }

std::string WithoutBrackets(std::string_view host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return std::string(bracketed ? host.substr(1, host.size() - 2) : host);
}

bool IsLoopback(std::string_view host) {
  return host == "localhost" || host.substr(0, 4) == "127." || WithoutBrackets(host) == "::1";
}

bool IsWildcard(std::string_view host) { return host.empty() || host == "0.0.0.0" || WithoutBrackets(host) == "::"; }

}  // namespace polystill
