#include "benchmarks/members.h"

#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "runtime/status.h"

namespace polystill::benchmarks {
namespace {

constexpr std::chrono::seconds kPatience(120);
constexpr std::chrono::milliseconds kLookEvery(2);

}  // namespace

void Ledger::Assigned(const v1::WorkerOrder::Assignment& assignment) {
  MutexLock lock(&mutex_);
  if (++assigned_[assignment.generation()] == 1) assignment_ = assignment;
}

void Ledger::Lost(const absl::Status& status) {
  MutexLock lock(&mutex_);
  if (lost_.ok()) lost_ = status.ok() ? absl::AbortedError("the coordinator closed a stream") : status;
}

void Ledger::Watched(const v1::RunStatus& status) {
  MutexLock lock(&mutex_);
  status_ = status;
}

void Ledger::Probed(double seconds) {
  MutexLock lock(&mutex_);
  probes_.push_back(seconds);
}

absl::Status Ledger::AwaitWelcomed(int workers) {
  return Await("all workers are welcome", [&] { return welcomed_ >= workers; });
}

absl::Status Ledger::AwaitReady(int teachers) {
  return Await("all teachers are ready", [&] { return ready_ >= teachers; });
}

absl::StatusOr<int64_t> Ledger::AwaitGeneration(int64_t before, int workers) {
  int64_t number = 0;
  const auto at_work = [&] {
    MutexLock lock(&mutex_);
    if (status_.stages().empty()) return false;
    const v1::RunStatus::Stage& stage = status_.stages(status_.current());
    number = stage.generation();
    return number > before && stage.workers() == workers && stage.done() == number && assigned_[number] == workers;
  };
  RETURN_IF_ERROR(Await(absl::StrCat("a generation of ", workers, " is at work"), at_work));
  return number;
}

absl::Status Ledger::AwaitProbes(size_t count) {
  return Await("all probes are answered", [&] {
    MutexLock lock(&mutex_);
    return probes_.size() >= count;
  });
}

std::vector<double> Ledger::TakeProbes() {
  MutexLock lock(&mutex_);
  return std::exchange(probes_, {});
}

v1::WorkerOrder::Assignment Ledger::assignment() {
  MutexLock lock(&mutex_);
  return assignment_;
}

absl::Status Ledger::Await(const std::string& what, const std::function<bool()>& holds) {
  const Clock::time_point deadline = Clock::now() + kPatience;
  while (!holds()) {
    RETURN_IF_ERROR(Annotate(lost(), absl::StrCat("before ", what)));
    if (Clock::now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat("waited ", kPatience.count(), " s until ", what));
    }
    std::this_thread::sleep_for(kLookEvery);
  }
  return absl::OkStatus();
}

absl::Status Ledger::lost() {
  MutexLock lock(&mutex_);
  return lost_;
}

v1::WorkerMessage Worker::Hello(const std::string& id) {
  v1::WorkerMessage said;
  said.mutable_hello()->set_protocol_version(kProtocolVersion);
  said.mutable_hello()->set_worker_id(id);
  said.mutable_hello()->set_host("127.0.0.1");
  said.mutable_hello()->set_pid(getpid());
  return said;
}

void Worker::Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) {
  stub->async()->Work(context, this);
}

void Worker::Take(const v1::WorkerOrder& order) {
  if (order.has_welcome()) ledger()->Welcomed();
  if (order.has_assignment()) Begin(order.assignment());
  if (order.has_regroup() && order.regroup().generation() == standing_.generation()) Interrupt();
}

void Worker::Begin(const v1::WorkerOrder::Assignment& assignment) {
  v1::WorkerMessage agreed, progress;
  agreed.mutable_agreed()->set_generation(assignment.generation());
  agreed.mutable_agreed()->set_step(assignment.generation() - 1);
  agreed.mutable_agreed()->set_digest("equal");
  agreed.mutable_agreed()->set_from_generation(standing_.state_generation());
  progress.mutable_progress()->set_generation(assignment.generation());
  progress.mutable_progress()->set_step(assignment.generation());
  standing_.set_job(assignment.job().name());
  standing_.set_generation(assignment.generation());
  standing_.set_working(true);
  standing_.set_state_generation(assignment.generation());
  standing_.set_step(assignment.generation());
  ledger()->Assigned(assignment);
  Say(std::move(agreed));
  Say(std::move(progress));
}

void Worker::Interrupt() {
  standing_.set_working(false);
  v1::WorkerMessage said;
  *said.mutable_interrupted()->mutable_standing() = standing_;
  Say(std::move(said));
}

v1::TeacherMessage Teacher::Hello(const std::string& teacher, int number) {
  v1::TeacherMessage said;
  said.mutable_hello()->set_protocol_version(kProtocolVersion);
  // As long as a RandomId.
  said.mutable_hello()->set_server_id(absl::StrFormat("00000000-00000000-00000000-%08x", number));
  said.mutable_hello()->set_teacher(teacher);
  said.mutable_hello()->set_address(absl::StrFormat("10.0.%d.%d:50051", number / 256, number % 256));
  said.mutable_hello()->set_pid(getpid());
  return said;
}

void Teacher::Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) {
  stub->async()->Teach(context, this);
}

void Teacher::Take(const v1::TeacherOrder& order) {
  if (!order.has_load()) return;
  v1::TeacherMessage said;
  said.mutable_ready()->set_digest(digest_);
  Say(std::move(said));
  ledger()->Ready();
}

void Probe::Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) {
  stub->async()->Work(context, this);
}

void Probe::Take(const v1::WorkerOrder& order) {
  if (!order.has_welcome()) return;
  ledger()->Probed(SecondsSince(began_));
  Leave();
}

}  // namespace polystill::benchmarks
