#include "soft_labels/replica_stream.h"

#include <utility>

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
  Read();
  StartCall();
}

void ReplicaStream::Send(v1::LabelStreamRequest request) {
  if (ended_) return;
  outgoing_.push_back(std::move(request));
  if (outgoing_.size() == 1) WriteNext();
}

void ReplicaStream::WriteNext() { StartWrite(&outgoing_.front()); }

void ReplicaStream::Read() {
  if (!ended_) StartRead(&incoming_);
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

void ReplicaStream::OnReadDone(bool ok) {
  StreamEvent event{ok ? StreamEvent::Kind::kRead : StreamEvent::Kind::kReadsEnded, this, {}, ok, {}};
  if (ok) event.message.Swap(&incoming_);
  post_(std::move(event));
}

void ReplicaStream::OnWriteDone(bool ok) { post_({StreamEvent::Kind::kWritten, this, {}, ok, {}}); }

void ReplicaStream::OnDone(const grpc::Status& status) {
  const Post post = post_;  // the owner may destroy this stream as soon as it has the event
  post({StreamEvent::Kind::kDone, this, {}, status.ok(), FromGrpc(status)});
}

}  // namespace polystill::soft_labels
