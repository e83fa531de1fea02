#include "runtime/rpc.h"

#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill {
namespace {

bool IsLoopback(absl::string_view host) {
  return host == "localhost" || absl::StartsWith(host, "127.") || host == "[::1]" || absl::StartsWith(host, "unix:");
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
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
  const size_t colon = listen.rfind(':');
  if (colon == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("listen address '", listen, "' is not host:port"));
  }
  const std::string host = listen.substr(0, colon);
  if (!insecure && !IsLoopback(host)) {
    return absl::InvalidArgumentError(absl::StrCat("listening on '", listen,
                                                   "' without TLS is open to everybody who reaches that address; add "
                                                   "--insecure if that is meant"));
  }
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  ListeningServer listening;
  builder.AddListeningPort(listen, grpc::InsecureServerCredentials(), &listening.port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  for (grpc::Service* service : services) builder.RegisterService(service);
  listening.server = builder.BuildAndStart();
  if (listening.server == nullptr || listening.port == 0) {
    return absl::AlreadyExistsError(absl::StrCat("cannot listen on ", listen,
                                                 ": the port is in use, or the address is not this machine's; choose "
                                                 "another with --listen, or port 0 for any free one"));
  }
  listening.address = absl::StrCat(advertise_host.empty() ? host : advertise_host, ":", listening.port);
  return listening;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace polystill
