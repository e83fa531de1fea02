#include "soft_labels/replica_stream.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/tenant.h"

namespace polystill::soft_labels {
namespace {

constexpr char kMethod[] = "/polystill.v1.TeacherService/LabelStream";

}  // namespace

ReplicaStream::ReplicaStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& client,
                             const std::string& tenant, Post post)
    : post_(std::move(post)), stub_(channel) {
  if (!tenant.empty()) context_.AddMetadata(kTenantKey, tenant);
  stub_.PrepareBidiStreamingCall(&context_, kMethod, grpc::StubOptions(), this);
  v1::LabelStreamRequest open;
  open.mutable_open()->set_protocol_version(kProtocolVersion);
  open.mutable_open()->set_client(client);
  AddHold();  // until the reads have ended: operations are started from outside of reactions
  Send(std::move(open));
  StartRead(&incoming_);
  StartCall();
}

void ReplicaStream::Send(v1::LabelStreamRequest request) {
  if (ended_) return;
  outgoing_.push_back(std::move(request));
  if (outgoing_.size() == 1) WriteNext();
}

void ReplicaStream::Ask(v1::LabelStreamRequest request, std::shared_ptr<const Piece> piece) {
  {
    MutexLock lock(&mutex_);
    asked_[request.request().request_id()] = std::move(piece);
  }
  Send(std::move(request));
}

void ReplicaStream::WriteNext() { StartWrite(&outgoing_.front()); }

void ReplicaStream::TakenIn() {
  if (waiting_.fetch_sub(1) == kReadAhead) StartRead(&incoming_);
}

void ReplicaStream::Cancel(absl::Status why) {
  if (cancelled_.ok()) cancelled_ = std::move(why);
  context_.TryCancel();
}

void ReplicaStream::Handle(StreamEvent& event) {
  switch (event.kind) {
    case StreamEvent::Kind::kRead:
      return;
    case StreamEvent::Kind::kReadsEnded:
      ended_ = true;
      RemoveHold();
      return;
    case StreamEvent::Kind::kWritten:
      // After a failed write the reads end too, and with them the stream.
      outgoing_.pop_front();
      if (event.ok && !ended_ && !outgoing_.empty()) WriteNext();
      return;
    case StreamEvent::Kind::kDone:
      if (!cancelled_.ok()) event.status = cancelled_;
      return;
  }
}

absl::StatusOr<std::unique_ptr<Received>> ReplicaStream::Receive(const grpc::ByteBuffer& bytes) {
  auto received = std::make_unique<Received>();
  if (!bytes.Dump(&received->slices).ok()) return absl::DataLossError("sent a compressed message that is torn");
  std::vector<std::string_view> buffers;
  for (const grpc::Slice& slice : received->slices) {
    buffers.emplace_back(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  absl::StatusOr<StreamReply> message = ReadStreamReply(buffers);
  if (!message.ok()) return absl::DataLossError(absl::StrCat("sent no message: ", message.status().message()));
  received->message = *std::move(message);
  if (!received->message.message.has_reply()) return received;
  std::shared_ptr<const Piece> piece;
  {
    MutexLock lock(&mutex_);
    const auto asked = asked_.extract(received->message.message.reply().request_id());
    if (!asked.empty()) piece = std::move(asked.mapped());
  }
  if (piece != nullptr) received->answer = ReadAnswer(received->message, *piece);
  return received;
}

void ReplicaStream::OnReadDone(bool ok) {
  if (!ok) return post_({StreamEvent::Kind::kReadsEnded, this});
  StreamEvent event{StreamEvent::Kind::kRead, this};
  auto received = Receive(incoming_);
  if (received.ok()) {
    event.received = *std::move(received);
  } else {
    event.status = received.status();
  }
  incoming_.Clear();
  post_(std::move(event));
  if (waiting_.fetch_add(1) + 1 < kReadAhead) StartRead(&incoming_);  // else TakenIn does
}

void ReplicaStream::OnWriteDone(bool ok) { post_({StreamEvent::Kind::kWritten, this, {}, ok}); }

void ReplicaStream::OnDone(const grpc::Status& status) {
  const Post post = post_;  // the owner may destroy this stream as soon as it has the event
  post({StreamEvent::Kind::kDone, this, FromGrpc(status)});
}

}  // namespace polystill::soft_labels
