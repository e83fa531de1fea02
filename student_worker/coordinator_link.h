#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/mutex.h"
#include "student_worker/job_link.h"

namespace polystill::student_worker {

// The worker's stream to the coordinator.
//
//   1. Open: hello ->, <- welcome.
//   2. A thread reads orders: assignments wait for NextAssignment; a stop, or the coordinator's loss, requests `stop`.
//   3. A thread writes: what the worker says, and a heartbeat each second.
//   4. The destructor sends what is left, and ends the stream.
//
// Thread-safe.
class CoordinatorLink : public JobLink {
 public:
  struct Options {
    // host:port.
    std::string coordinator;
    // Name or address of this machine for the other workers.
    std::string host;
    // For the coordinator to be there.
    std::chrono::milliseconds patience{30'000};
    // Once the coordinator is lost: for this link to be destroyed, before `give_up` is called, by a thread of its own.
    std::chrono::milliseconds leave_within{10'000};
    std::function<void()> give_up = LeaveAtOnce;
  };

  // Ends the process as failed. c10d may wait for minutes for a store that went with the coordinator, and nothing that
  // a worker does without a coordinator counts.
  [[noreturn]] static void LeaveAtOnce();

  // `stop` is requested when the work is to end. UNAVAILABLE: no coordinator at that address; CANCELLED: `stop` came
  // from elsewhere meanwhile; else the coordinator's refusal.
  static absl::StatusOr<std::unique_ptr<CoordinatorLink>> Open(const Options& options, std::stop_source stop);
  ~CoordinatorLink() override;

  // The run's name.
  const std::string& run() const { return run_; }
  // Waits for the next assignment; none once `stop` is requested. UNAVAILABLE: the coordinator is lost.
  absl::StatusOr<std::optional<v1::WorkerOrder::Assignment>> NextAssignment();
  // How the run has ended, once the coordinator has said so; STATE_UNSPECIFIED before.
  v1::RunStatus::State RunEnd();

  void Report(const v1::WorkerMessage::Progress& progress) override;
  void TellCheckpoint(const v1::WorkerMessage::Checkpointed& checkpoint) override;
  absl::StatusOr<v1::CorpusIndex> GetIndex(const std::string& digest) override;
  void SendDone(const v1::WorkerMessage::Done& done);
  void SendFailed(int64_t generation, const absl::Status& status);

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerOrder>;

  CoordinatorLink(const Options& options, std::stop_source stop);
  absl::Status AwaitCoordinator();
  absl::Status Greet();
  void ReadOrders();
  void WatchLeaving();
  void TakeOrder(v1::WorkerOrder order);
  void WriteMessages();
  // What to write next, once there is something; nothing at the end.
  std::optional<v1::WorkerMessage> NextMessage();
  void Send(v1::WorkerMessage message);

  const Options options_;
  std::stop_source stop_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;
  std::string run_;  // set before the threads start

  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::WorkerOrder::Assignment> assignments_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::WorkerMessage> outbox_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::WorkerMessage> progress_ ABSL_GUARDED_BY(mutex_);
  std::chrono::steady_clock::time_point progress_due_ ABSL_GUARDED_BY(mutex_);
  int64_t term_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  // The coordinator ordered to stop: then the stream's end is no loss.
  bool dismissed_ ABSL_GUARDED_BY(mutex_) = false;
  v1::RunStatus::State run_end_ ABSL_GUARDED_BY(mutex_) = v1::RunStatus::STATE_UNSPECIFIED;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);

  std::thread writer_;
  std::thread reader_;
};

}  // namespace polystill::student_worker
