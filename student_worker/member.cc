#include "student_worker/member.h"

#include <google/protobuf/stubs/logging.h>

#include <utility>

namespace polystill::student_worker {

using v1::WorkerMessage;
using v1::WorkerOrder;

bool Member::Welcomed(int64_t term) {
  if (term < term_) return false;
  term_ = term;
  return true;
}

Member::Reaction Member::Ordered(const WorkerOrder& order) {
  switch (order.message_case()) {
    case WorkerOrder::kAssignment:
      return OrderedAssignment(order.assignment());
    case WorkerOrder::kRegroup:
      return OrderedRegroup(order.regroup());
    case WorkerOrder::kTeachers:
      return OrderedTeachers(order.teachers());
    case WorkerOrder::kStop:
      return {Reaction::Kind::kStop};
    default:
      return {};
  }
}

Member::Reaction Member::OrderedAssignment(const WorkerOrder::Assignment& assignment) {
  if (assignment.term() < term_ || assignment.generation() <= generation_) return {};
  term_ = assignment.term();
  generation_ = assignment.generation();
  ordered_ = assignment;
  leave_at_once_ = leave_at_boundary_ = false;
  // Whoever is still at work was taken for dead, and came back.
  return {in_group() ? Reaction::Kind::kBreak : Reaction::Kind::kLook};
}

Member::Reaction Member::OrderedRegroup(const WorkerOrder::Regroup& regroup) {
  if (regroup.term() < term_ || regroup.generation() != generation_) return {};
  term_ = regroup.term();
  if (regroup.at_boundary()) {
    // Whoever is done comes to no boundary any more, nor do its peers.
    leave_at_boundary_ = in_group() || ordered_.has_value();
    return {leave_at_boundary_ ? Reaction::Kind::kLook : Reaction::Kind::kNone};
  }
  const bool waits = ordered_.has_value() || state_ == State::kDone;
  leave_at_once_ = true;
  ordered_.reset();
  if (in_group()) return {Reaction::Kind::kBreak};
  if (!waits) return {};
  begun_generation_ = generation_;
  state_ = State::kWaiting;
  return {Reaction::Kind::kNone, Interrupted(absl::OkStatus())};
}

Member::Reaction Member::OrderedTeachers(const WorkerOrder::Teachers& teachers) {
  if (teachers.term() < term_ || teachers.generation() != generation_) return {};
  term_ = teachers.term();
  if (ordered_.has_value()) {
    *ordered_->mutable_teachers() = teachers.teachers();
    return {};
  }
  *assignment_.mutable_teachers() = teachers.teachers();
  return {in_group() ? Reaction::Kind::kTeachers : Reaction::Kind::kNone};
}

const WorkerOrder::Assignment* Member::Begin() {
  if (in_group() || !ordered_.has_value()) return nullptr;
  if (ordered_->job().name() != assignment_.job().name()) held_ = {};
  assignment_ = *std::exchange(ordered_, std::nullopt);
  begun_generation_ = assignment_.generation();
  last_word_.reset();
  state_ = assignment_.job().kind() == v1::Job::KIND_TRAIN ? State::kJoining : State::kWorking;
  return &assignment_;
}

void Member::Joined() {
  GOOGLE_CHECK(state_ == State::kJoining);
  state_ = State::kAgreeing;
}

absl::StatusOr<Source> Member::Agree(const std::vector<v1::StateNote>& notes) {
  GOOGLE_CHECK(state_ == State::kAgreeing);
  absl::StatusOr<Source> source = rule_(notes, assignment_);
  if (source.ok()) source_ = *source;
  return source;
}

void Member::Taking() {
  GOOGLE_CHECK(state_ == State::kAgreeing);
  next_ = source_.state;
  held_.step = -1;
  state_ = State::kTaking;
}

void Member::Taken() {
  GOOGLE_CHECK(state_ == State::kTaking);
  held_ = next_;
  state_ = State::kAgreeing;
}

WorkerMessage Member::Agreed(const std::string& digest) {
  GOOGLE_CHECK(state_ == State::kAgreeing && held_ == source_.state);
  WorkerMessage message;
  auto& agreed = *message.mutable_agreed();
  agreed.set_generation(assignment_.generation());
  agreed.set_step(held_.step);
  agreed.set_digest(digest);
  agreed.set_from_generation(held_.generation);
  agreed.set_from_checkpoint(source_.kind == Source::Kind::kCheckpoint);
  held_.generation = assignment_.generation();
  state_ = State::kWorking;
  return message;
}

void Member::Applying() {
  GOOGLE_CHECK(state_ == State::kWorking && held_.held());
  next_ = {held_.generation, held_.step + 1};
  held_.step = -1;
  state_ = State::kApplying;
}

void Member::Applied() {
  GOOGLE_CHECK(state_ == State::kApplying);
  held_ = next_;
  state_ = State::kWorking;
}

std::optional<WorkerMessage> Member::Done(const WorkerMessage::Progress& progress, const std::string& weights_digest) {
  GOOGLE_CHECK(state_ == State::kWorking);
  if (must_leave()) return Leave(absl::OkStatus());
  state_ = State::kDone;
  WorkerMessage message;
  auto& done = *message.mutable_done();
  *done.mutable_progress() = progress;
  done.mutable_progress()->set_generation(assignment_.generation());
  done.set_weights_digest(weights_digest);
  last_word_ = message;
  return message;
}

WorkerMessage Member::Failed(const absl::Status& why) {
  GOOGLE_CHECK(in_group());
  state_ = State::kWaiting;
  WorkerMessage message;
  message.mutable_failed()->set_generation(assignment_.generation());
  message.mutable_failed()->set_code(static_cast<int>(why.code()));
  message.mutable_failed()->set_message(std::string(why.message()));
  last_word_ = message;
  return message;
}

std::optional<WorkerMessage> Member::Leave(const absl::Status& why) {
  GOOGLE_CHECK(in_group());
  state_ = State::kWaiting;
  if (ordered_.has_value()) return std::nullopt;
  leave_at_boundary_ = false;
  begun_generation_ = generation_;
  return Interrupted(why);
}

WorkerMessage Member::Interrupted(const absl::Status& why) {
  WorkerMessage message;
  auto& interrupted = *message.mutable_interrupted();
  *interrupted.mutable_standing() = standing();
  interrupted.set_code(static_cast<int>(why.code()));
  interrupted.set_reason(std::string(why.message()));
  last_word_ = message;
  return message;
}

v1::Standing Member::standing() const {
  v1::Standing standing;
  const WorkerOrder::Assignment& newest = ordered_.has_value() ? *ordered_ : assignment_;
  standing.set_job(newest.job().name());
  standing.set_generation(generation_);
  // Whoever has not joined yet would wait in the store of the coordinator that is gone.
  const bool joins = ordered_.has_value() ? ordered_->job().kind() == v1::Job::KIND_TRAIN : state_ == State::kJoining;
  standing.set_working(!joins && (ordered_.has_value() || (state_ != State::kWaiting && !must_leave())));
  if (newest.job().name() != assignment_.job().name()) return standing;
  standing.set_state_generation(held_.generation);
  standing.set_step(held_.step);
  return standing;
}

v1::StateNote Member::note() const {
  v1::StateNote note;
  note.set_state_generation(held_.generation);
  note.set_step(held_.step);
  return note;
}

}  // namespace polystill::student_worker
