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
#include "student_worker/membership.h"

namespace polystill::student_worker {

// The worker's stream to the coordinator, opened again as often as it breaks.
//
//   0. Reach: the coordinator answers; so do GetJob and GetIndex.
//   1. Join: hello with the worker's standing ->, <- welcome.
//   2. A thread reads orders, which `membership` obeys.
//   3. Another writes: what the worker says, and a heartbeat each second.
//   4. When the stream breaks, work goes on, and 1 is tried again, at most a second apart. After lost_patience the
//      coordinator is lost, and `stop` is requested.
//   5. The destructor sends what is left, and ends the stream.
//
// Thread-safe.
class CoordinatorLink : public JobLink {
 public:
  struct Options {
    // host:port.
    std::string coordinator;
    // Name or address of this machine for the other workers.
    std::string host;
    // For the coordinator to be there at first.
    std::chrono::milliseconds patience{30'000};
    // For it to come back.
    std::chrono::milliseconds lost_patience{600'000};
    // Once the coordinator is lost: for this link to be destroyed, before `give_up` is called, by a thread of its own.
    std::chrono::milliseconds leave_within{10'000};
    std::function<void()> give_up = LeaveAtOnce;
  };

  // Ends the process as failed: nothing that a worker does without a coordinator counts.
  [[noreturn]] static void LeaveAtOnce();

  // `membership` outlives the link; its `stop` is this one. UNAVAILABLE: no coordinator at that address; CANCELLED:
  // `stop` came from elsewhere meanwhile.
  static absl::StatusOr<std::unique_ptr<CoordinatorLink>> Reach(const Options& options, Membership* membership,
                                                                std::stop_source stop);
  // Once. The same errors, or the coordinator's refusal.
  absl::Status Join();

  // The training under way. NOT_FOUND: there is none.
  absl::StatusOr<v1::GetJobReply> GetJob();
  ~CoordinatorLink() override;

  // The run's name, once joined.
  const std::string& run() const { return run_; }
  // UNAVAILABLE once the coordinator is lost; OK before.
  absl::Status Lost();
  // How the run has ended, once the coordinator has said so; STATE_UNSPECIFIED before.
  v1::RunStatus::State RunEnd();

  void Report(const v1::WorkerMessage::Progress& progress) override;
  // The last one is told again to a coordinator that was away.
  void TellCheckpoint(const v1::WorkerMessage::Checkpointed& checkpoint) override;
  // Once joined, waits for the coordinator while it is away, reads the corpus again, or has too many such calls.
  absl::StatusOr<v1::CorpusIndex> GetIndex(const std::string& digest) override;

 private:
  using Stream = grpc::ClientReaderWriter<v1::WorkerMessage, v1::WorkerOrder>;
  // One stream.
  struct Session {
    grpc::ClientContext context;
    std::unique_ptr<Stream> stream;
    bool over = false;  // guarded by the link's mutex
  };

  CoordinatorLink(const Options& options, Membership* membership, std::stop_source stop);
  std::string where() const { return "coordinator at " + options_.coordinator; }
  absl::Status AwaitCoordinator(std::chrono::steady_clock::time_point give_up);
  absl::StatusOr<std::unique_ptr<Session>> Greet();
  absl::Status ExchangeGreetings(Session* session);
  void Run(std::unique_ptr<Session> session);
  // Reads and writes until the stream ends; how it has.
  absl::Status Serve(Session* session);
  // Null: the coordinator is lost, or this link closes.
  std::unique_ptr<Session> GreetAgain(absl::Status why);
  void NoteOrder(const v1::WorkerOrder& order);
  void WriteMessages(Session* session);
  // What to write next, once there is something; nothing at the end.
  std::optional<v1::WorkerMessage> NextMessage(Session* session);
  void Send(v1::WorkerMessage message);
  // Cancelled by `leave`, and when all is to stop.
  absl::StatusOr<v1::CorpusIndex> FetchIndex(const std::string& digest, const std::stop_token& leave);
  bool ends() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closing_ || dismissed_; }

  const Options options_;
  Membership* const membership_;
  std::stop_source stop_;
  const std::string worker_id_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;
  std::string run_;  // set before the thread starts

  Mutex mutex_;
  CondVar changed_;
  // The stream under way, for the destructor; null while there is none.
  Session* session_ ABSL_GUARDED_BY(mutex_) = nullptr;
  std::deque<v1::WorkerMessage> outbox_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::WorkerMessage> progress_ ABSL_GUARDED_BY(mutex_);
  std::optional<v1::WorkerMessage> checkpoint_ ABSL_GUARDED_BY(mutex_);  // the last
  std::chrono::steady_clock::time_point progress_due_ ABSL_GUARDED_BY(mutex_);
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  // The coordinator ordered to stop: then the stream's end is no loss.
  bool dismissed_ ABSL_GUARDED_BY(mutex_) = false;
  v1::RunStatus::State run_end_ ABSL_GUARDED_BY(mutex_) = v1::RunStatus::STATE_UNSPECIFIED;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);

  std::thread thread_;  // last: it uses everything above
};

}  // namespace polystill::student_worker
