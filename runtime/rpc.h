#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill {

// Version of polystill.v1's messages that this build speaks; sent in every hello and request, refused when different.
inline constexpr int kProtocolVersion = 1;

// Largest message sent or received, in bytes: a bigger one ends its call with RESOURCE_EXHAUSTED.
inline constexpr int kMaxMessageBytes = 32 << 20;

// Memory of a server's buffers beyond which gRPC reads no more and refuses connections.
inline constexpr size_t kMaxServerBytes = size_t{2} << 30;

grpc::Status ToGrpc(const absl::Status& status);
absl::Status FromGrpc(const grpc::Status& status);

// Says in a call's trailing metadata, as gRPC's retries know it (grpc-retry-pushback-ms), after how long asking again
// may succeed, in milliseconds. Before the call is finished.
void AddRetryAfter(grpc::ServerContextBase* context, int64_t retry_after_ms);

// FAILED_PRECONDITION with both versions in the message, unless `version` is kProtocolVersion.
absl::Status CheckProtocolVersion(int version);

// A server that listens. Stop it with server->Shutdown(deadline).
struct ListeningServer {
  std::unique_ptr<grpc::Server> server;
  // host:port with the port that was bound.
  std::string address;
  int port = 0;
};

// Binds `listen` ("host:port"; port 0: any free one) and serves `services` and gRPC's health service on it. Without TLS
// a host other than loopback is refused (INVALID_ARGUMENT) unless `insecure`. ALREADY_EXISTS when the port is in use.
// `advertise_host`: the host written into `address`; that of `listen` when empty. INVALID_ARGUMENT when that would be
// one that nobody can connect to (0.0.0.0, [::]). gRPC's buffers for all callers together stay near kMaxServerBytes.
absl::StatusOr<ListeningServer> Listen(const std::string& listen, const std::vector<grpc::Service*>& services,
                                       bool insecure = false, const std::string& advertise_host = "");

// A channel to host:port with the message limits and keep-alive of this project (a peer that has vanished shows within
// ten seconds), past any HTTP proxy. Connects lazily.
std::shared_ptr<grpc::Channel> Connect(const std::string& address);

// A channel with other arguments, for what speaks another protocol or measures. Every channel is made here or by
// Connect, every server by Listen, as both set up the process for gRPC first.
std::shared_ptr<grpc::Channel> ConnectWith(const std::string& target, const grpc::ChannelArguments& arguments);

}  // namespace polystill
