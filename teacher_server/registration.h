#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/mutex.h"

namespace polystill::teacher_server {

// A teacher server's place in a run: a Teach stream to the coordinator, and another one whenever that breaks.
//
//   hello --> welcome, heartbeat every second --> load --> ready (or failed) --> stop
//
// A coordinator that is lost is looked for, and told what is served already; it does not ask for that to be loaded once
// more. Two threads: one reads orders and carries them out, one sends heartbeats meanwhile.
class Registration {
 public:
  struct Options {
    std::string coordinator;  // host:port
    std::string teacher;      // name of the teacher to serve
    std::string address;      // host:port of this server
    // Its name among the run's servers, the same after a restart; empty: one that it has this time alone.
    std::string server_id = {};
    int64_t heartbeat_ms = 1'000;
    // Time to reach the coordinator at first. Milliseconds.
    int64_t connect_ms = 60'000;
    // Time to reach it again after it was lost, and between two attempts. Milliseconds.
    int64_t lost_patience_ms = 600'000;
    int64_t greet_every_ms = 500;
    // Time that the coordinator has to take in the last message and close its side. Milliseconds.
    int64_t goodbye_ms = 2'000;
  };
  // Loads and serves a package; its digest.
  using Load = std::function<absl::StatusOr<std::string>(const v1::TeacherOrder::Load& order)>;
  // Called once, by the registration's thread: OK after `stop`, CANCELLED when this is destroyed, otherwise why the
  // process must end (UNAVAILABLE: the coordinator was not reached, or did not come back; FAILED_PRECONDITION: it has
  // no use for this server).
  using Ended = std::function<void(absl::Status)>;

  Registration(Options options, Load load, Ended ended);
  // Leaves the run.
  ~Registration();

 private:
  using Stream = grpc::ClientReaderWriter<v1::TeacherMessage, v1::TeacherOrder>;

  absl::Status Run();
  absl::Status WaitForCoordinator();
  // One stream from hello to its end: how an order ended it, or nothing when it broke, for the reason `why`.
  std::optional<absl::Status> Serve(absl::Status* why);
  void Greet();
  // False: this is being destroyed.
  bool Pause();
  // How an order ended it; nothing when the stream broke.
  std::optional<absl::Status> Obey();
  // Lets the coordinator read what was said last: cancelling the call would drop what is still on its way.
  void SayGoodbye();
  void Tell(bool* flag);
  absl::Status CarryOut(const v1::TeacherOrder& order, bool* stop);
  absl::Status Welcome(const v1::TeacherOrder::Welcome& welcome);
  absl::Status LoadPackage(const v1::TeacherOrder::Load& order);
  void Heartbeats();
  // False when the stream is broken; its reading side tells why.
  bool Send(const v1::TeacherMessage& message);

  const Options options_;
  const Load load_;
  const Ended ended_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;
  const std::string server_id_;
  std::unique_ptr<Stream> stream_;  // set before the heartbeats begin
  std::string digest_;              // of what is served; empty: nothing yet
  int64_t term_ = 0;                // the greatest seen
  bool welcomed_ = false;           // on this stream

  Mutex write_mutex_;  // one writer at a time
  Mutex mutex_;
  CondVar changed_;
  std::unique_ptr<grpc::ClientContext> context_ ABSL_GUARDED_BY(mutex_);  // of the stream
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;                          // this is being destroyed
  bool over_ ABSL_GUARDED_BY(mutex_) = false;                             // no more heartbeats
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;                           // the coordinator has closed its side

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace polystill::teacher_server
