#include "student_worker/membership.h"

namespace polystill::student_worker {

using Kind = Member::Reaction::Kind;

void Membership::SayLocked(std::optional<v1::WorkerMessage> message) {
  if (message.has_value() && say_) say_(*std::move(message));
}

Membership::Greeting Membership::Connect(Say say) {
  MutexLock lock(&mutex_);
  say_ = std::move(say);
  return {member_.standing(), member_.LastWord()};
}

void Membership::Disconnect() {
  MutexLock lock(&mutex_);
  say_ = nullptr;
}

bool Membership::Welcomed(int64_t term) {
  MutexLock lock(&mutex_);
  return member_.Welcomed(term);
}

void Membership::Obey(const v1::WorkerOrder& order) {
  std::stop_source leave(std::nostopstate);
  bool stop = false;
  {
    MutexLock lock(&mutex_);
    Member::Reaction reaction = member_.Ordered(order);
    SayLocked(std::move(reaction.say));
    stop = reaction.kind == Kind::kStop;
    if (reaction.kind == Kind::kBreak) leave = leave_;
    if (reaction.kind == Kind::kTeachers && on_teachers_) on_teachers_(member_.assignment());
    changed_.NotifyAll();
  }
  // Not under the lock: what is broken off may call back.
  if (stop) stop_.request_stop();
  leave.request_stop();
}

v1::Heartbeat Membership::Pulse() const {
  MutexLock lock(&mutex_);
  v1::Heartbeat pulse;
  pulse.set_begun(member_.assignment().generation());
  pulse.set_idle(idle_);
  return pulse;
}

// Of ranks that join or agree there is nothing to save, and some may never come to a boundary.
void Membership::LeaveWhatIsForming() {
  std::stop_source leave(std::nostopstate);
  {
    MutexLock lock(&mutex_);
    if (member_.state() == Member::State::kJoining || member_.state() == Member::State::kAgreeing) leave = leave_;
  }
  leave.request_stop();
}

std::optional<v1::WorkerOrder::Assignment> Membership::NextAssignment() {
  std::stop_callback wake(stop_.get_token(), [this] {
    MutexLock lock(&mutex_);
    changed_.NotifyAll();
  });
  MutexLock lock(&mutex_);
  while (!stop_.stop_requested()) {
    if (const v1::WorkerOrder::Assignment* assignment = member_.Begin()) {
      leave_ = std::stop_source();
      return *assignment;
    }
    idle_ = true;
    changed_.Wait(&mutex_);
    idle_ = false;
  }
  return std::nullopt;
}

std::stop_token Membership::leave() const {
  MutexLock lock(&mutex_);
  return leave_.get_token();
}

bool Membership::must_leave() const {
  return Do([](const Member& member) { return member.must_leave(); });
}

bool Membership::leave_at_boundary() const {
  return Do([](const Member& member) { return member.leave_at_boundary(); });
}

void Membership::Joined() {
  Do([](Member& member) { member.Joined(); });
}

absl::StatusOr<Source> Membership::Agree(const std::vector<v1::StateNote>& notes) {
  return Do([&](Member& member) { return member.Agree(notes); });
}

void Membership::Taking() {
  Do([](Member& member) { member.Taking(); });
}

void Membership::Taken() {
  Do([](Member& member) { member.Taken(); });
}

void Membership::Applying() {
  Do([](Member& member) { member.Applying(); });
}

void Membership::Applied() {
  Do([](Member& member) { member.Applied(); });
}

v1::StateNote Membership::note() const {
  return Do([](const Member& member) { return member.note(); });
}

v1::WorkerOrder::Assignment Membership::assignment() const {
  return Do([](const Member& member) { return member.assignment(); });
}

void Membership::Agreed(const std::string& digest) {
  MutexLock lock(&mutex_);
  SayLocked(member_.Agreed(digest));
}

void Membership::Done(const v1::WorkerMessage::Progress& progress, const std::string& weights_digest) {
  MutexLock lock(&mutex_);
  SayLocked(member_.Done(progress, weights_digest));
}

void Membership::Failed(const absl::Status& why) {
  MutexLock lock(&mutex_);
  SayLocked(member_.Failed(why));
}

void Membership::Leave(const absl::Status& why) {
  MutexLock lock(&mutex_);
  SayLocked(member_.Leave(why));
}

void Membership::ListenToTeachers(OnTeachers on_teachers) {
  MutexLock lock(&mutex_);
  on_teachers_ = std::move(on_teachers);
  if (on_teachers_) on_teachers_(member_.assignment());
}

}  // namespace polystill::student_worker
