#include "soft_labels/head.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/rpc.h"
#include "runtime/sha256.h"
#include "runtime/status.h"

namespace polystill::soft_labels {
namespace {

// A replica that gives no chunk for so long is given up.
constexpr std::chrono::minutes kPatience(10);

absl::StatusOr<std::string> FetchFrom(const std::string& address, const v1::Head& head) {
  const auto stub = v1::TeacherService::NewStub(Connect(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  v1::GetHeadRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_digest(head.digest());
  const auto stream = stub->GetHead(&context, request);
  std::string bytes;
  v1::HeadChunk chunk;
  while (stream->Read(&chunk)) {
    bytes += chunk.data();
    if (static_cast<int64_t>(bytes.size()) > head.bytes()) break;
  }
  if (static_cast<int64_t>(bytes.size()) > head.bytes()) context.TryCancel();
  const absl::Status status = FromGrpc(stream->Finish());
  if (!status.ok() && static_cast<int64_t>(bytes.size()) <= head.bytes()) return status;
  if (static_cast<int64_t>(bytes.size()) == head.bytes() && Sha256Hex(bytes) == head.digest()) return bytes;
  return absl::DataLossError(absl::StrCat("gave ", bytes.size(), " bytes that are not the ", head.bytes(),
                                          " of the head with digest ", head.digest()));
}

}  // namespace

absl::StatusOr<std::string> FetchHead(const std::vector<std::string>& addresses, const v1::Head& head) {
  if (head.bytes() > kMaxHeadBytes) {
    return absl::FailedPreconditionError(absl::StrCat("its output head has ", head.bytes(), " bytes, more than ",
                                                      kMaxHeadBytes, "; take another codec than hidden_head"));
  }
  absl::Status last = absl::InvalidArgumentError("no replica to fetch the output head from");
  for (const std::string& address : addresses) {
    absl::StatusOr<std::string> bytes = FetchFrom(address, head);
    if (bytes.ok()) return bytes;
    last = Annotate(bytes.status(), absl::StrCat("the output head from ", address));
  }
  return last;
}

}  // namespace polystill::soft_labels
