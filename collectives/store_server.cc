#include "collectives/store_server.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "collectives/background.h"
#include "collectives/c10d_status.h"
#include "runtime/address.h"
#include "runtime/status.h"

namespace polystill::collectives {
namespace {

constexpr int kBacklog = 4096;

absl::Status ListenError(const std::string& host, int port, int error_number) {
  const std::string message =
      absl::StrCat("cannot host the store of the workers on ", host, ":", port, ": ", std::strerror(error_number));
  if (error_number == EADDRINUSE) return absl::AlreadyExistsError(message);
  return absl::InvalidArgumentError(message);
}

// A socket that listens on `host` alone: TCPStore itself would listen on every address of the machine.
absl::StatusOr<int> ListenOn(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found); error != 0) {
    return absl::InvalidArgumentError(absl::StrCat("host '", host, "' is unknown: ", gai_strerror(error)));
  }
  const int socket = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  const bool listens = socket >= 0 && setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) == 0 &&
                       bind(socket, found->ai_addr, found->ai_addrlen) == 0 && listen(socket, kBacklog) == 0;
  const int error_number = errno;
  freeaddrinfo(found);
  if (listens) return socket;
  if (socket >= 0) close(socket);
  return ListenError(host, port, error_number);
}

absl::StatusOr<int> PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  char service[NI_MAXSERV];
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&address), length, nullptr, 0, service, sizeof(service),
                  NI_NUMERICSERV) != 0) {
    return absl::InternalError("cannot read back the port of the workers' store");
  }
  return std::stoi(service);
}

}  // namespace

struct StoreServer::State {
  c10::intrusive_ptr<c10d::TCPStore> store;
  std::atomic<bool> deletes = false;

  void Delete(const std::function<bool(const std::string& key)>& is_over) {
    for (const std::string& key : store->listKeys()) {
      if (is_over(key)) store->deleteKey(key);
    }
  }
};

StoreServer::StoreServer(std::shared_ptr<State> state) : state_(std::move(state)) {}
StoreServer::~StoreServer() = default;

absl::StatusOr<std::unique_ptr<StoreServer>> StoreServer::Start(const std::string& host, int port) {
  const std::string bare = WithoutBrackets(host);
  ASSIGN_OR_RETURN(const int socket, ListenOn(bare, port));
  ASSIGN_OR_RETURN(port, PortOf(socket));
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = true;
  options.waitWorkers = false;
  options.masterListenFd = socket;
  // The server's process is also its first client, and cannot connect to "any address".
  const std::string reach = bare == "0.0.0.0" ? "127.0.0.1" : bare == "::" ? "::1" : bare;
  auto state = std::make_shared<State>();
  RETURN_IF_ERROR(CatchC10d(absl::StrCat("host the store of the workers on ", host, ":", port),
                            [&] { state->store = c10::make_intrusive<c10d::TCPStore>(reach, options); }));
  return std::unique_ptr<StoreServer>(new StoreServer(std::move(state)));
}

int StoreServer::port() const { return state_->store->getPort(); }

void StoreServer::Forget(std::function<bool(const std::string& key)> is_over) {
  if (state_->deletes.exchange(true)) return;
  RunInBackground([state = state_, is_over = std::move(is_over)] {
    // What it leaves is left for the next time.
    CatchC10d("delete keys of generations that are over", [&] { state->Delete(is_over); }).IgnoreError();
    state->deletes = false;
  });
}

std::vector<std::string> StoreServer::Keys() const { return state_->store->listKeys(); }

}  // namespace polystill::collectives
