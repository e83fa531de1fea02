#include "runtime/address.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/strings/ascii.h"

namespace polystill {

std::string HostOf(std::string_view address) { return std::string(address.substr(0, address.rfind(':'))); }

std::string WithoutBrackets(std::string_view host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return std::string(bracketed ? host.substr(1, host.size() - 2) : host);
}

bool IsHostName(std::string_view host) {
  const auto of_a_name = [](unsigned char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; };
  in_addr ipv4;
  return !host.empty() && std::all_of(host.begin(), host.end(), of_a_name) &&
         ::inet_pton(AF_INET, std::string(host).c_str(), &ipv4) != 1;
}

bool IsLoopback(std::string_view host) {
  return host == "localhost" || host.substr(0, 4) == "127." || WithoutBrackets(host) == "::1";
}

bool IsWildcard(std::string_view host) { return host.empty() || host == "0.0.0.0" || WithoutBrackets(host) == "::"; }

}  // namespace polystill
