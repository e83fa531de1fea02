#pragma once

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.grpc.pb.h"
#include "runtime/mutex.h"
#include "runtime/rpc.h"

// Workers and teachers without a model, for benchmarks/coordinator_load.cc: as far as a coordinator can tell, they
// speak the protocol of docs/elastic.md. Of gRPC's threads, by callbacks: there may be thousands of them.
namespace polystill::benchmarks {

using Clock = std::chrono::steady_clock;

inline double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What all members write down. Thread-safe.
class Ledger {
 public:
  void Welcomed() { ++welcomed_; }
  void Ready() { ++ready_; }
  void Assigned(const v1::WorkerOrder::Assignment& assignment) ABSL_LOCKS_EXCLUDED(mutex_);
  // A stream has ended that nobody here has ended.
  void Lost(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void Watched(const v1::RunStatus& status) ABSL_LOCKS_EXCLUDED(mutex_);
  void Probed(double seconds) ABSL_LOCKS_EXCLUDED(mutex_);

  // Until so many workers are welcome, and teachers ready. Each of these waits gives up after two minutes
  // (DEADLINE_EXCEEDED), and when a stream is lost (its error).
  absl::Status AwaitWelcomed(int workers);
  absl::Status AwaitReady(int teachers);
  // Until a generation beyond `before` of so many workers is at work: each of them has its assignment, and the
  // coordinator has handled their answers. Its number.
  absl::StatusOr<int64_t> AwaitGeneration(int64_t before, int workers);
  absl::Status AwaitProbes(size_t count);

  // What they took, in seconds.
  std::vector<double> TakeProbes() ABSL_LOCKS_EXCLUDED(mutex_);
  // The last one.
  v1::WorkerOrder::Assignment assignment() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status Await(const std::string& what, const std::function<bool()>& holds);
  absl::Status lost() ABSL_LOCKS_EXCLUDED(mutex_);

  std::atomic<int> welcomed_ = 0;
  std::atomic<int> ready_ = 0;
  Mutex mutex_;
  // Generation -> members that have their assignment.
  std::map<int64_t, int> assigned_ ABSL_GUARDED_BY(mutex_);
  v1::WorkerOrder::Assignment assignment_ ABSL_GUARDED_BY(mutex_);
  absl::Status lost_ ABSL_GUARDED_BY(mutex_);
  v1::RunStatus status_ ABSL_GUARDED_BY(mutex_);
  std::vector<double> probes_ ABSL_GUARDED_BY(mutex_);
};

// A stream to the coordinator: `Said` goes there, `Order` comes from there. Thread-safe. Only after AwaitDone may it
// go.
template <typename Said, typename Order>
class Member : public grpc::ClientBidiReactor<Said, Order> {
 public:
  explicit Member(Ledger* ledger) : ledger_(ledger) {}

  void Join(v1::CoordinatorService::Stub* stub, Said hello) {
    Call(stub, &context_);
    this->AddHold();  // until nothing can be said any more
    this->StartRead(&order_);
    Say(std::move(hello));
    this->StartCall();
  }

  void Beat() {
    Said said;
    said.mutable_heartbeat();
    Say(std::move(said));
  }

  // As a process that is killed: its connection breaks.
  void Leave() {
    leaves_ = true;
    context_.TryCancel();
  }

  void AwaitDone() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
  }

 protected:
  virtual void Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) = 0;
  virtual void Take(const Order& order) = 0;

  void Say(Said said) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (closed_) return;
    outbox_.push_back(std::move(said));
    if (outbox_.size() == 1) this->StartWrite(&outbox_.front());
  }

  Ledger* ledger() { return ledger_; }

 private:
  void OnReadDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    if (ok) {
      Take(order_);
      return this->StartRead(&order_);
    }
    {
      MutexLock lock(&mutex_);
      closed_ = true;
    }
    this->RemoveHold();
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (!ok || closed_) return outbox_.clear();
    outbox_.pop_front();
    if (!outbox_.empty()) this->StartWrite(&outbox_.front());
  }

  void OnDone(const grpc::Status& status) override ABSL_LOCKS_EXCLUDED(mutex_) {
    if (!leaves_) ledger_->Lost(FromGrpc(status));
    MutexLock lock(&mutex_);
    done_ = true;
    changed_.NotifyAll();
  }

  Ledger* const ledger_;
  grpc::ClientContext context_;
  Order order_;
  std::atomic<bool> leaves_ = false;
  Mutex mutex_;
  CondVar changed_;
  // The front one is being written.
  std::deque<Said> outbox_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

using WorkStream = Member<v1::WorkerMessage, v1::WorkerOrder>;
using TeachStream = Member<v1::TeacherMessage, v1::TeacherOrder>;

// Agrees with all others as soon as it has its assignment, and has then applied one step. The steps that it says it has
// applied are the number of its generation, so that the run's status tells whose progress was handled.
class Worker final : public WorkStream {
 public:
  using WorkStream::WorkStream;
  static v1::WorkerMessage Hello(const std::string& id);

 private:
  void Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) override;
  void Take(const v1::WorkerOrder& order) override;
  void Begin(const v1::WorkerOrder::Assignment& assignment);
  void Interrupt();

  v1::Standing standing_;
};

// Has loaded its package as soon as it is told to.
class Teacher final : public TeachStream {
 public:
  // `digest`: of the package.
  Teacher(Ledger* ledger, std::string digest) : TeachStream(ledger), digest_(std::move(digest)) {}
  static v1::TeacherMessage Hello(const std::string& teacher, int number);

 private:
  void Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) override;
  void Take(const v1::TeacherOrder& order) override;

  const std::string digest_;
};

// A worker that leaves once it is welcome. From its making to its welcome passes what a heartbeat takes until it is
// handled, for a hello goes the same way; and besides, the opening of a stream and the answer's way back.
class Probe final : public WorkStream {
 public:
  using WorkStream::WorkStream;

 private:
  void Call(v1::CoordinatorService::Stub* stub, grpc::ClientContext* context) override;
  void Take(const v1::WorkerOrder& order) override;

  const Clock::time_point began_ = Clock::now();
};

}  // namespace polystill::benchmarks
