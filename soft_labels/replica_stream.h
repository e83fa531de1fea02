#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/mutex.h"
#include "soft_labels/pieces.h"
#include "soft_labels/reply_reader.h"

namespace polystill::soft_labels {

class ReplicaStream;

// A message that came.
struct Received {
  std::vector<grpc::Slice> slices;  // what `message` points into
  StreamReply message;
  // When it is the reply about a piece that was asked for.
  std::optional<absl::StatusOr<PieceAnswer>> answer;
};

// What happened on a stream.
struct StreamEvent {
  enum class Kind {
    kRead,        // `message` came; call TakenIn() when it was taken care of
    kReadsEnded,  // the replica says no more; kDone follows
    kWritten,
    kDone,  // last: the stream may be destroyed
  };
  Kind kind;
  ReplicaStream* stream;
  // kDone: how the stream ended; kRead: DATA_LOSS when what came is no message.
  absl::Status status = {};
  // kWritten: whether it was.
  bool ok = true;
  std::unique_ptr<Received> received = {};
};

// One LabelStream to one replica. Events are posted from gRPC's threads, which decode what they have read, while it
// lies in their cache, and do nothing else; everything is decided by the one thread that owns the stream: it calls all
// methods, and hands every event to Handle() first.
//
//   constructor: open sent, first read started --> kRead* / kWritten* --> kReadsEnded --> kDone
//
// At most kReadAhead messages have come and wait for TakenIn(): gRPC receives the next one while the owner is busy with
// one, and a replica that talks too much waits in its own flow control. Messages are read as bytes, so that one that
// does not parse is not mistaken for the end of the stream.
class ReplicaStream final : private grpc::ClientBidiReactor<v1::LabelStreamRequest, grpc::ByteBuffer> {
 public:
  using Post = std::function<void(StreamEvent)>;

  static constexpr int kReadAhead = 2;

  ReplicaStream(const std::shared_ptr<grpc::Channel>& channel, const std::string& client, const std::string& tenant,
                Post post);

  // Bounded by the caller: the replica's credits.
  void Send(v1::LabelStreamRequest request);
  // Asks about `piece`; `request` has an id of its own on the stream.
  void Ask(v1::LabelStreamRequest request, std::shared_ptr<const Piece> piece);
  // Once for each message that was posted.
  void TakenIn();
  // Ends the stream; kDone carries `why`.
  void Cancel(absl::Status why);
  bool cancelled() const { return !cancelled_.ok(); }
  void Handle(StreamEvent& event);

 private:
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void WriteNext();
  // Parses and decodes what was read.
  absl::StatusOr<std::unique_ptr<Received>> Receive(const grpc::ByteBuffer& bytes);

  const Post post_;
  grpc::TemplatedGenericStub<v1::LabelStreamRequest, grpc::ByteBuffer> stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer incoming_;    // gRPC's while it reads: unless kReadAhead messages wait
  std::atomic<int> waiting_{0};  // messages that were posted and not taken in; -1 for a moment
  Mutex mutex_;
  // By request id: those that were not answered yet.
  std::map<uint64_t, std::shared_ptr<const Piece>> asked_ ABSL_GUARDED_BY(mutex_);
  // Of the owner's thread.
  std::deque<v1::LabelStreamRequest> outgoing_;  // the front one is being written
  bool ended_ = false;                           // nothing may be started any more
  absl::Status cancelled_;
};

}  // namespace polystill::soft_labels
