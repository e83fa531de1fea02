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

// A teacher server's place in a run: one Teach stream to the coordinator.
//
//   hello --> welcome, heartbeat every second --> load --> ready (or failed) --> stop
//
// Two threads: one reads orders and carries them out, one sends heartbeats meanwhile. A lost coordinator is not looked
// for again: the registration has ended then.
class Registration {
 public:
  struct Options {
    std::string coordinator;  // host:port
    std::string teacher;      // name of the teacher to serve
    std::string address;      // host:port of this server
    int64_t heartbeat_ms = 1'000;
    // Time to reach the coordinator at first. Milliseconds.
    int64_t connect_ms = 60'000;
    // Time that the coordinator has to take in the last message and close its side. Milliseconds.
    int64_t goodbye_ms = 2'000;
  };
  // Loads and serves a package; its digest.
  using Load = std::function<absl::StatusOr<std::string>(const v1::TeacherOrder::Load& order)>;
  // Called once, by the registration's thread: OK after `stop`, CANCELLED when this is destroyed, otherwise why the
  // process must end (UNAVAILABLE: the coordinator is lost or was not reached).
  using Ended = std::function<void(absl::Status)>;

  Registration(Options options, Load load, Ended ended);
  // Leaves the run.
  ~Registration();

 private:
  using Stream = grpc::ClientReaderWriter<v1::TeacherMessage, v1::TeacherOrder>;

  absl::Status Run();
  absl::Status WaitForCoordinator();
  // How an order ended it; nothing when the stream broke.
  std::optional<absl::Status> Obey();
  // Lets the coordinator read what was said last: cancelling the call would drop what is still on its way.
  void SayGoodbye();
  void Tell(bool* flag);
  absl::Status CarryOut(const v1::TeacherOrder& order, bool* stop);
  absl::Status LoadPackage(const v1::TeacherOrder::Load& order);
  void Heartbeats();
  // False when the stream is broken; its reading side tells why.
  bool Send(const v1::TeacherMessage& message);

  const Options options_;
  const Load load_;
  const Ended ended_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::CoordinatorService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<Stream> stream_;  // set before the heartbeats begin

  Mutex write_mutex_;  // one writer at a time
  Mutex mutex_;
  CondVar changed_;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;  // this is being destroyed
  bool over_ ABSL_GUARDED_BY(mutex_) = false;     // no more heartbeats
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;   // the coordinator has closed its side

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace polystill::teacher_server
