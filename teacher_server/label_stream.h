#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/mutex.h"
#include "teacher_server/engine.h"

namespace polystill::teacher_server {

// One LabelStream call.
//
//   1. `open` comes first and is answered with `opened`.
//   2. A request is checked, charged to the stream's credits and given to the engine; its answer may come in any order.
//      Its credits are free again when the answer has been written, so a caller that does not read cannot make memory
//      grow. Errors are answers too.
//   3. `cancel` answers with CANCELLED at once; the engine drops the work if it has not begun.
//   4. While more than kMaxUnsentBytes of answers wait to be written, or kMaxFlightBytes are under way (rows of tokens
//      make answers that credits, which count records, do not bound), requests are held: they are begun in their order
//      when there is room again. The next message is read when the one before was taken care of, so that a cancel is
//      heard even then; reading pauses while more than kMaxHeldBytes of requests are held.
//   5. The call ends with OK when the caller has closed its side and everything is answered; with UNAVAILABLE when the
//      server drains and everything is answered; at once with INVALID_ARGUMENT or FAILED_PRECONDITION when the caller
//      breaks the protocol, or with CANCELLED when it has gone.
//
// Reactions come from gRPC's threads and answers from the engine's; all meet under one mutex.
class LabelStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public std::enable_shared_from_this<LabelStream> {
 public:
  // Bytes of answers that wait to be written, beyond which nothing is begun. What is in flight then is added to them.
  static constexpr size_t kMaxUnsentBytes = size_t{1} << 20;

  // Bytes that the answers under way will have, beyond which nothing is begun.
  static constexpr int64_t kMaxFlightBytes = int64_t{64} << 20;

  // Memory of requests that are held, beyond which nothing is read.
  static constexpr size_t kMaxHeldBytes = size_t{1} << 20;

  // `engine` outlives the stream. `tenant`: whom its requests are for. `gone` is called last, and gives up the
  // ownership.
  LabelStream(Engine* engine, std::string tenant, std::function<void(LabelStream*)> gone);

  // Starts reading. Once, after the stream is owned by a shared_ptr.
  void Start();
  // Takes no more requests and ends when everything is answered.
  void Drain();

 private:
  // A request under way.
  struct Flight {
    Flight(uint64_t id, int64_t count, int64_t bytes) : request_id(id), records(count), answer_bytes(bytes) {}
    const uint64_t request_id;
    const int64_t records;
    const int64_t answer_bytes;
    std::atomic<bool> cancelled = false;
  };
  // A request that is not begun, or what is wrong with it.
  struct Held {
    v1::LabelRequest request;
    absl::Status bad;
    size_t bytes;
  };
  // A message that waits to be written, or is being written (the front one).
  struct Outgoing {
    grpc::ByteBuffer message;
    int64_t records;  // credits that are free when it has been written
    size_t bytes;
  };

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override { gone_(this); }

  // The status that ends the call, or OK.
  absl::Status Take(absl::Status parsed, v1::LabelStreamRequest message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeOpen(const v1::LabelStreamRequest::Open& open) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TakeRequest(v1::LabelRequest request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Hold(v1::LabelRequest request, absl::Status bad) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes a request off those that are held.
  Held Release(std::deque<Held>::iterator held) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::deque<Held>::iterator FindHeld(uint64_t request_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Begins what there is room for.
  void BeginHeld() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeCancel(uint64_t request_id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Ask(v1::LabelRequest request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Deliver(const std::shared_ptr<Flight>& flight, absl::StatusOr<Answer> answer);
  // Takes a flight off the books: its answer comes, or nobody waits for it.
  void Land(std::map<uint64_t, std::shared_ptr<Flight>>::iterator flight) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Enqueue(grpc::ByteBuffer message, int64_t records) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Starts every operation that can start now.
  void Advance() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Engine* const engine_;
  const std::string tenant_;
  const std::function<void(LabelStream*)> gone_;
  grpc::ByteBuffer incoming_;  // gRPC's while reading_

  Mutex mutex_;
  bool opened_ ABSL_GUARDED_BY(mutex_) = false;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool half_closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;    // finishes with end_ as soon as nothing is being written
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;  // Finish was called: nothing may be started any more
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);  // by request id
  int64_t credits_used_ ABSL_GUARDED_BY(mutex_) = 0;                             // of flights_ and outgoing_
  int64_t flight_bytes_ ABSL_GUARDED_BY(mutex_) = 0;                             // of the answers of flights_
  std::deque<Held> held_ ABSL_GUARDED_BY(mutex_);
  size_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of held_
  std::deque<Outgoing> outgoing_ ABSL_GUARDED_BY(mutex_);
  size_t unsent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of outgoing_
};

}  // namespace polystill::teacher_server
