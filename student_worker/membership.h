#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <utility>

#include "absl/status/status.h"
#include "polystill/v1/coordinator.pb.h"
#include "runtime/mutex.h"
#include "student_worker/member.h"

namespace polystill::student_worker {

// The worker's Member under one lock, between the thread that reads the coordinator's orders and the one that trains:
// an order wakes the trainer or breaks off what it waits for, and what the member says goes to the coordinator in the
// order in which it was decided. Thread-safe.
class Membership {
 public:
  // Sends a message, without waiting.
  using Say = std::function<void(v1::WorkerMessage)>;
  // Told of teachers whose replicas have changed; must not call back.
  using OnTeachers = std::function<void(const v1::WorkerOrder::Assignment&)>;

  // What a hello tells.
  struct Greeting {
    v1::Standing standing;
    // To be sent after the welcome.
    std::optional<v1::WorkerMessage> last_word;
  };

  // `stop`: requested at the order to stop, or by others.
  explicit Membership(std::stop_source stop)
      : stop_(std::move(stop)), on_stop_(stop_.get_token(), [this] { LeaveWhatIsForming(); }) {}

  // Of the thread that reads orders.
  //
  // A stream begins: what its hello tells; what is said from now on goes to `say`.
  Greeting Connect(Say say);
  // It has ended: what is said is dropped until the next one.
  void Disconnect();
  // As of Member.
  bool Welcomed(int64_t term);
  void Obey(const v1::WorkerOrder& order);
  // Whether the thread that trains follows: what each heartbeat tells.
  v1::Heartbeat Pulse() const;

  // Of the thread that trains.
  //
  // Waits for the next assignment; none once `stop` is requested.
  std::optional<v1::WorkerOrder::Assignment> NextAssignment();
  // Requested when the generation under way is to be left at once.
  std::stop_token leave() const;
  bool must_leave() const;
  bool leave_at_boundary() const;
  // As of Member; what it answers is said.
  void Joined();
  absl::StatusOr<Source> Agree(const std::vector<v1::StateNote>& notes);
  void Taking();
  void Taken();
  void Agreed(const std::string& digest);
  void Applying();
  void Applied();
  void Done(const v1::WorkerMessage::Progress& progress, const std::string& weights_digest);
  void Failed(const absl::Status& why);
  void Leave(const absl::Status& why);
  v1::StateNote note() const;
  // The assignment under way, with the teachers' replicas as they are now.
  v1::WorkerOrder::Assignment assignment() const;

  // The caller's `on_teachers` is called for the generation under way, at once with what changed since it began; empty:
  // nobody is.
  void ListenToTeachers(OnTeachers on_teachers);

 private:
  template <typename Call>
  auto Do(Call call) const {
    MutexLock lock(&mutex_);
    return call(member_);
  }
  void LeaveWhatIsForming();
  void SayLocked(std::optional<v1::WorkerMessage> message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::stop_source stop_;
  mutable Mutex mutex_;
  CondVar changed_;
  mutable Member member_ ABSL_GUARDED_BY(mutex_);
  // The thread that trains waits for an assignment.
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;
  std::stop_source leave_ ABSL_GUARDED_BY(mutex_);  // of the generation under way
  Say say_ ABSL_GUARDED_BY(mutex_);
  OnTeachers on_teachers_ ABSL_GUARDED_BY(mutex_);

  const std::stop_callback<std::function<void()>> on_stop_;  // last: it uses everything above
};

}  // namespace polystill::student_worker
