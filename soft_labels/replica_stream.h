#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::soft_labels {

class ReplicaStream;

// What happened on a stream.
struct StreamEvent {
  enum class Kind {
    kRead,        // `message` came; call Read() for the next
    kReadsEnded,  // the replica says no more; kDone follows
    kWritten,
    kDone,  // last: the stream may be destroyed
  };
  Kind kind;
  ReplicaStream* stream;
  grpc::ByteBuffer message;
  bool ok = true;
  absl::Status status;
};

// One LabelStream to one replica. Events are posted from gRPC's threads, which do nothing else; everything is decided
// by the one thread that owns the stream: it calls all methods, and hands every event to Handle() first.
//
//   constructor: open sent, first read started --> kRead* / kWritten* --> kReadsEnded --> kDone
//
// A message is read only after Read() was called for the one before, so a replica that talks too much waits in its own
// flow control. Messages are read as bytes, so that one that does not parse is not mistaken for the end of the stream.
class ReplicaStream final : private grpc::ClientBidiReactor<v1::LabelStreamRequest, grpc::ByteBuffer> {
 public:
  using Post = std::function<void(StreamEvent)>;

  ReplicaStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& client, const std::string& tenant,
                Post post);

  // Bounded by the caller: the replica's credits.
  void Send(v1::LabelStreamRequest request);
  void Read();
  // Ends the stream; kDone carries `why`.
  void Cancel(absl::Status why);
  bool cancelled() const { return !cancelled_.ok(); }
  void Handle(StreamEvent& event);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void WriteNext();

  const Post post_;
  grpc::TemplatedGenericStub<v1::LabelStreamRequest, grpc::ByteBuffer> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer incoming_;
  // Of the owner's thread.
  std::deque<v1::LabelStreamRequest> outgoing_;  // the front one is being written
  bool ended_ = false;                           // nothing may be started any more
  absl::Status cancelled_;
};

}  // namespace polystill::soft_labels
