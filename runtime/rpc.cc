#include "runtime/rpc.h"

#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runtime/address.h"
#include "runtime/status.h"

namespace polystill {
namespace {

// A peer that has vanished (its machine is off, a cable is out) shows within kPingEvery + kAnswerWithin; one that
// stands still for less than kAnswerWithin is not lost.
constexpr std::chrono::milliseconds kPingEvery{2'000};
constexpr std::chrono::milliseconds kAnswerWithin{8'000};

template <typename Set>
void SetKeepalive(Set set) {
  set(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(kPingEvery.count()));
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, static_cast<int>(kAnswerWithin.count()));
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Without data in between gRPC would stop after two pings.
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
}

// Debian builds Abseil for debugging: its mutexes, which are gRPC's, keep a graph of the order in which each was ever
// locked. One lock of all threads guards it, so that each costs several times as much, memory creeps up, and the
// process aborts when two mutexes are locked in both orders, even if never at the same time.
void LockWithoutGraph() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

void AddRetryAfter(grpc::ServerContextBase* context, int64_t retry_after_ms) {
  context->AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(retry_after_ms));
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

absl::Status CheckProtocolVersion(int version) {
  if (version == kProtocolVersion) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("protocol version ", version, " is not spoken here, only ",
                                                    kProtocolVersion, "; use the same release on both sides"));
}

absl::StatusOr<ListeningServer> Listen(const std::string& listen, const std::vector<grpc::Service*>& services,
                                       bool insecure, const std::string& advertise_host) {
  if (listen.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("listen address '", listen, "' is not host:port"));
  }
  const std::string host = HostOf(listen);
  const std::string told = advertise_host.empty() ? host : advertise_host;
  if (!insecure && !IsLoopback(host)) {
    return absl::InvalidArgumentError(absl::StrCat("listening on '", listen,
                                                   "' without TLS is open to everybody who reaches that address; add "
                                                   "--insecure if that is meant"));
  }
  if (IsWildcard(told)) {
    return absl::InvalidArgumentError(absl::StrCat("'", told, "' of '", listen,
                                                   "' is no host that others can connect to; name one with "
                                                   "--advertise"));
  }
  LockWithoutGraph();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ListeningServer listening;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &listening.port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  SetKeepalive([&](const char* name, int value) { builder.AddChannelArgument(name, value); });
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(kPingEvery.count() / 2));
  builder.SetResourceQuota(grpc::ResourceQuota("polystill").Resize(kMaxServerBytes));
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  for (grpc::Service* service : services) builder.RegisterService(service);
  listening.server = builder.BuildAndStart();
  if (listening.server == nullptr || listening.port == 0) {
    return absl::AlreadyExistsError(absl::StrCat("cannot listen on ", listen,
                                                 ": the port is in use, or the address is not this machine's; choose "
                                                 "another with --listen, or port 0 for any free one"));
  }
  listening.address = absl::StrCat(told, ":", listening.port);
  return listening;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  SetKeepalive([&](const char* name, int value) { arguments.SetInt(name, value); });
  // Processes of a run reach each other directly; http_proxy is for others.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return ConnectWith(address, arguments);
}

std::shared_ptr<grpc::Channel> ConnectWith(const std::string& target, const grpc::ChannelArguments& arguments) {
  LockWithoutGraph();
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace polystill
