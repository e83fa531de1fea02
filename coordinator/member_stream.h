#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "runtime/mutex.h"

namespace polystill::coordinator {

// The coordinator's end of a Work or Teach stream.
//
//   1. ReadNext reads one message, which goes to on_message; no other is read until it is called again, so that a
//      process that talks too much waits, rather than filling the coordinator's memory.
//   2. Send queues an order; one is written at a time. The machine sends a few for each job, which bounds the queue.
//   3. When the process closes its stream, or is gone, on_closed is called and the stream ends. Close ends it from this
//      side, after the write under way; orders that are still queued are dropped.
//   4. on_done is called last of all; then the owner may delete the object.
//
// Thread-safe; callbacks come from gRPC's threads and must not block.
template <typename In, typename Out>
class MemberStream final : public grpc::ServerBidiReactor<In, Out> {
 public:
  struct Callbacks {
    std::function<void(In)> on_message;
    std::function<void()> on_closed;
    std::function<void()> on_done;
  };
  explicit MemberStream(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  void ReadNext() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (!finishing_.has_value()) this->StartRead(&in_);
  }

  void Send(Out order) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (finishing_.has_value()) return;
    orders_.push_back(std::move(order));
    if (orders_.size() == 1) this->StartWrite(&orders_.front());
  }

  void Close(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (finishing_.has_value()) return;
    finishing_ = std::move(status);
    if (orders_.empty()) this->Finish(*finishing_);
  }

 private:
  void OnReadDone(bool ok) override {
    if (ok) return callbacks_.on_message(std::move(in_));
    callbacks_.on_closed();
    Close(grpc::Status::OK);
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (finishing_.has_value() || !ok) {
      // A write that failed means a broken connection, which the pending read reports.
      orders_.clear();
      if (finishing_.has_value()) this->Finish(*finishing_);
      return;
    }
    orders_.pop_front();
    if (!orders_.empty()) this->StartWrite(&orders_.front());
  }

  // No OnCancel: what a process said before it vanished is still read, then the read that fails reports it.

  void OnDone() override {
    // The owner may delete this object, and with it callbacks_, while it runs.
    const auto on_done = std::move(callbacks_.on_done);
    on_done();
  }

  Callbacks callbacks_;
  // Written by gRPC between StartRead and OnReadDone.
  In in_;

  Mutex mutex_;
  // The front one is being written.
  std::deque<Out> orders_ ABSL_GUARDED_BY(mutex_);
  // Set once the stream is to end, or has ended: nothing is started any more.
  std::optional<grpc::Status> finishing_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::coordinator
