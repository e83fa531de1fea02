#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/mutex.h"

namespace polystill::cli {

// Follows the status of the run that answers first at an address; no other run's that may listen there later. A broken
// stream is opened again, with a pause between, until the run has ended or this object goes. Thread-safe.
class RunWatcher {
 public:
  struct Seen {
    // STATE_UNSPECIFIED until the first came.
    v1::RunStatus status;
    std::chrono::steady_clock::time_point at;
  };

  explicit RunWatcher(const std::string& address);
  ~RunWatcher();

  Seen Latest() const;
  // Asks the coordinator to end the run. Waits for its answer, at most two seconds.
  absl::Status Stop(const std::string& reason);

 private:
  void Follow();
  // Reads one stream to its end.
  void FollowOnce();
  // False when this object goes.
  bool Pause();

  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;

  mutable Mutex mutex_;
  CondVar closing_changed_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the stream that is open, so that it can be cancelled.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Seen latest_ ABSL_GUARDED_BY(mutex_);

  // Last: it uses all of the above.
  std::thread thread_;
};

// Whether a run in this state goes on no more.
inline bool HasEnded(const v1::RunStatus& status) {
  return status.state() != v1::RunStatus::STATE_UNSPECIFIED && status.state() != v1::RunStatus::STATE_RUNNING;
}

}  // namespace polystill::cli
