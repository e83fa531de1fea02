#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_callback.h>

#include <functional>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "polystill/v1/coordinator.pb.h"
#include "runtime/mutex.h"

namespace polystill::coordinator {

// The coordinator's end of a Watch call. A watcher that reads slowly misses statuses in between, never the last one:
// only the newest waits for its turn. Thread-safe.
class StatusStream final : public grpc::ServerWriteReactor<v1::RunStatus> {
 public:
  // `on_done` is called last of all; then the owner may delete the object.
  explicit StatusStream(std::function<void()> on_done) : on_done_(std::move(on_done)) {}

  // Sends `status`; ends the call after it when it is the `last`.
  void Publish(const v1::RunStatus& status, bool last) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (last_ || finished_) return;
    last_ = last;
    next_ = status;
    if (!writing_) WriteNext();
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    current_ = *std::exchange(next_, std::nullopt);
    writing_ = true;
    StartWrite(&current_);
  }

  void End(grpc::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    finished_ = true;
    Finish(std::move(status));
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) return End(grpc::Status::CANCELLED);
    if (next_.has_value()) return WriteNext();
    if (last_) End(grpc::Status::OK);
  }

  void OnCancel() override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    End(grpc::Status::CANCELLED);
  }

  void OnDone() override {
    // The owner may delete this object, and with it on_done_, while it runs.
    const auto on_done = std::move(on_done_);
    on_done();
  }

  std::function<void()> on_done_;
  // Read by gRPC while writing_.
  v1::RunStatus current_;

  Mutex mutex_;
  std::optional<v1::RunStatus> next_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool last_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace polystill::coordinator
