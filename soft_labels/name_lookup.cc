#include "soft_labels/name_lookup.h"

#include <netdb.h>
#include <sys/socket.h>

#include <system_error>
#include <thread>
#include <utility>

namespace polystill::soft_labels {
namespace {

HostAddresses AddressesOf(const std::string& host) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;  // else each address comes once for each type
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return absl::UnavailableError(::gai_strerror(error));
  }
  std::vector<std::string> addresses;
  for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
    char text[NI_MAXHOST];
    const int error = ::getnameinfo(entry->ai_addr, entry->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
    if (error == 0) addresses.emplace_back(text);
  }
  ::freeaddrinfo(found);
  return addresses;
}

}  // namespace

void LookUp(const std::string& host, std::function<void(HostAddresses)> then) {
  try {
    std::thread([host, then] { then(AddressesOf(host)); }).detach();
  } catch (const std::system_error& error) {
    then(absl::UnavailableError(error.what()));
  }
}

}  // namespace polystill::soft_labels
