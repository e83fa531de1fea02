// The thread that trains: a generation from its assignment to its end.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "checkpoint/path.h"
#include "tests/simulation/teacher.h"
#include "tests/simulation/worker.h"

namespace polystill::simulation {

using student_worker::Source;

namespace {

// A worker's own work of a step, as it tells it.
constexpr double kOwnSeconds = 0.1;
// One that is slow by so many times takes so much more, so that what a coordinator does about it is done before the
// end.
constexpr Millis kSlowStep{200};

}  // namespace

History::Part Worker::part() const {
  const auto& assignment = member_->assignment();
  return {assignment.job().name(), assignment.generation(), assignment.rank(), assignment.world_size()};
}

void Worker::Then(Millis delay, void (Worker::*next)()) {
  Post(delay, [this, epoch = epoch_, next] {
    Train([this, epoch, next] {
      if (epoch != epoch_) return;
      // What is being put in place is mostly finished nevertheless.
      const bool holds = member_->held().held();
      if (member_->must_leave() && (holds || world().Chance(30))) return Leave(absl::OkStatus());
      (this->*next)();
    });
  });
}

void Worker::Collective(const Share& share, void (Worker::*next)(const Shares&)) {
  if (member_->must_leave()) return Leave(absl::OkStatus());
  group_->Call(part().rank, share, [this, epoch = epoch_, next](const absl::StatusOr<Shares>& shares) {
    Train([this, epoch, next, shares] {
      if (epoch != epoch_) return;
      if (!shares.ok()) return Leave(shares.status());
      (this->*next)(*shares);
    });
  });
}

void Worker::Look() {
  if (busy_) return;
  const auto* assignment = member_->Begin();
  if (assignment == nullptr) return;
  busy_ = true;
  ++epoch_;
  if (member_->held() == student_worker::StateName() && state_.digest != InitialState(job().name()).digest) {
    state_ = InitialState(job().name());
  }
  if (job().kind() == v1::Job::KIND_EVALUATE) return Then(world().Time(200, 2000), &Worker::EndEvaluation);
  group_ = cluster_.GroupOf(*assignment);
  group_->Join(part().rank, this, [this, epoch = epoch_](const absl::StatusOr<Shares>& joined) {
    Train([this, epoch, why = joined.status()] {
      if (epoch != epoch_) return;
      if (!why.ok() || member_->must_leave()) return Leave(why);
      member_->Joined();
      Gather();
    });
  });
}

void Worker::Leave(const absl::Status& why) {
  if (group_ != nullptr) {
    group_->Leave(part().rank);
    cluster_.history().Left(part());
  }
  const auto said = member_->Leave(why);
  group_ = nullptr;
  busy_ = false;
  ++epoch_;
  if (said.has_value()) Say(*said);
  Post(world().Time(0, 20), [this] { Train([this] { Look(); }); });
}

void Worker::Fail(const absl::Status& why) {
  group_->Leave(part().rank);
  cluster_.history().Left(part());
  Say(member_->Failed(why));
  group_ = nullptr;
  busy_ = false;
  ++epoch_;
  Post(world().Time(0, 20), [this] { Train([this] { Look(); }); });
}

void Worker::Gather() {
  Share share;
  share.note = member_->note();
  if (member_->held().held()) share.note.set_digest(DigestText(state_.digest));
  cluster_.history().Noted(part(), {share.note.state_generation(), share.note.step()}, state_.digest);
  Collective(share, &Worker::Choose);
}

void Worker::Choose(const Shares& shares) {
  std::vector<v1::StateNote> notes;
  for (const Share& share : shares) notes.push_back(share.note);
  const auto source = member_->Agree(notes);
  if (!source.ok()) return Fail(source.status());
  source_ = *source;
  world().Note([&] {
    return absl::StrCat(id_, " goes on from (", source->state.generation, ", ", source->state.step, ") of rank ",
                        source->rank);
  });
  cluster_.history().Chosen(part(), source_, notes, member_->assignment());
  if (source_.kind == Source::Kind::kInitial) return TakeOver(InitialState(job().name()));
  if (source_.kind == Source::Kind::kCheckpoint) {
    const std::string& path = member_->assignment().checkpoint();
    // Whoever begins an old generation late finds that it is deleted.
    if (!cluster_.history().disk().contains(path)) return Fail(absl::NotFoundError(path));
    cluster_.history().Loaded(path);
    return TakeOver(cluster_.history().disk()[path].state);
  }
  if (source_.receivers.empty()) return Compare();
  const auto& receivers = source_.receivers;
  const bool receives = std::find(receivers.begin(), receivers.end(), part().rank) != receivers.end();
  if (bugs_.no_staging && receives) state_.digest ^= 0x5555;  // half of it has arrived
  if (source_.rank == part().rank) return Then(world().Time(5, 500), &Worker::SendState);
  Collective({}, &Worker::Receive);
}

void Worker::SendState() {
  Share share;
  share.state = state_;
  if (world().Chance(2)) share.state.digest ^= 1;  // torn on its way
  Collective(share, &Worker::Receive);
}

void Worker::Receive(const Shares& shares) {
  const auto& receivers = source_.receivers;
  if (std::find(receivers.begin(), receivers.end(), part().rank) == receivers.end()) return Compare();
  const ModelState received = shares[static_cast<size_t>(source_.rank)].state;
  if (DigestText(received.digest) != source_.digest && !bugs_.no_verification) {
    return Leave(absl::AbortedError("torn on its way"));
  }
  TakeOver(received);
}

void Worker::TakeOver(ModelState state) {
  member_->Taking();
  next_state_ = state;
  state_.digest = ~state_.digest;  // neither the one nor the other
  Then(world().Time(0, 30), &Worker::SwapIn);
}

void Worker::SwapIn() {
  state_ = next_state_;
  member_->Taken();
  Compare();
}

void Worker::Compare() {
  if (bugs_.no_verification) {
    Say(member_->Agreed(DigestText(state_.digest)));
    cluster_.history().Agreed(part(), state_);
    return Work();
  }
  Share share;
  share.state = state_;
  Collective(share, &Worker::AllAgreed);
}

void Worker::AllAgreed(const Shares& shares) {
  for (const Share& share : shares) {
    if (share.state.digest != state_.digest) return Fail(absl::InternalError("replicas apart"));
  }
  Say(member_->Agreed(DigestText(state_.digest)));
  cluster_.history().Agreed(part(), state_);
  Work();
}

bool Worker::HasLabels() const {
  const auto& endpoints = member_->assignment().teachers();
  return cluster_.run().servers == 0 || job().losses_size() == 0 ||
         std::any_of(endpoints.begin(), endpoints.end(), [this](const v1::TeacherEndpoint& endpoint) {
           const Teacher* server = cluster_.FindServer(endpoint.address());
           return server != nullptr && server->answers();
         });
}

void Worker::Work() {
  if (state_.step == job().steps()) return Then(world().Time(1, 60), &Worker::Finish);
  labelled_ = HasLabels();
  if (!labelled_ && !bugs_.without_labels) return Then(Millis(100), &Worker::Work);
  // The rank's slice of the next step's global batch.
  const std::vector<int64_t> batch = PlanOf(state_.step + 1);
  const History::Part own = part();
  Share share;
  for (size_t i = 0; i < batch.size(); ++i) {
    if (static_cast<int>(i) * own.world / static_cast<int>(batch.size()) == own.rank)
      share.positions.push_back(batch[i]);
  }
  whole_before_ = group_->Whole(own.rank);
  Collective(share, &Worker::SecondBucket);
}

void Worker::SecondBucket(const Shares& shares) {
  positions_.clear();
  for (const Share& share : shares) positions_.insert(positions_.end(), share.positions.begin(), share.positions.end());
  if (bugs_.early_optimizer) TellApplying();
  Collective({}, &Worker::Reduced);
}

void Worker::Reduced(const Shares&) {
  if (!bugs_.early_optimizer) TellApplying();
  next_state_ = After(state_, positions_, part().number);
  Then(times_ == 1 ? world().Time(0, 5) : kSlowStep * times_, &Worker::Apply);
}

void Worker::TellApplying() {
  constexpr size_t kBuckets = 2;
  cluster_.history().Applying(part(), group_->Whole(part().rank) - whole_before_ == kBuckets, labelled_);
  member_->Applying();
}

void Worker::Apply() {
  const ModelState before = std::exchange(state_, next_state_);
  member_->Applied();
  cluster_.history().Applied(part(), before, state_, positions_);
  world().Note([&] { return absl::StrCat(id_, " has applied step ", state_.step, " in generation ", part().number); });
  TellProgress();
  AfterStep();
}

void Worker::TellProgress() {
  v1::WorkerMessage message;
  message.mutable_progress()->set_generation(part().number);
  message.mutable_progress()->set_step(state_.step);
  message.mutable_progress()->set_own_seconds(kOwnSeconds * times_);
  Say(message);
}

void Worker::AfterStep() {
  const bool last = state_.step == job().steps();
  const bool due = job().checkpoint_every() > 0 && state_.step % job().checkpoint_every() == 0;
  if (part().rank == 0 && (due || last)) WriteCheckpoint();
  if (last || state_.step % cluster_.run().roll_call_every != 0) return Work();
  Share share;
  share.regroup = member_->leave_at_boundary();
  Collective(share, &Worker::RollCalled);
}

void Worker::RollCalled(const Shares& shares) {
  if (std::any_of(shares.begin(), shares.end(), [](const Share& share) { return share.regroup; })) {
    return Leave(absl::OkStatus());
  }
  Work();
}

// Beside the training; it is whole, or nothing is there.
void Worker::WriteCheckpoint() {
  const std::string path = checkpoint::CheckpointPath(job().checkpoints(), state_.step, part().number);
  v1::WorkerMessage message;
  auto& written = *message.mutable_checkpointed();
  written.set_generation(part().number);
  written.set_step(state_.step);
  written.set_path(path);
  written.set_weights_digest(DigestText(state_.digest));
  ++writing_;
  if (bugs_.checkpoint_told_early) Say(message);
  Post(world().Time(20, 1500), [this, path, message, state = state_] {
    --writing_;
    cluster_.history().disk()[path] = {state, true};
    if (!bugs_.checkpoint_told_early) Say(message);
  });
}

void Worker::Finish() {
  if (writing_ > 0) return Then(Millis(20), &Worker::Finish);
  Then(world().Time(1, 200), &Worker::SayDone);
}

void Worker::SayDone() {
  v1::WorkerMessage::Progress progress;
  progress.set_step(state_.step);
  if (group_ != nullptr) {
    group_->Leave(part().rank);
    cluster_.history().Left(part());
  }
  const auto said = member_->Done(progress, DigestText(state_.digest));
  group_ = nullptr;
  busy_ = false;
  ++epoch_;
  if (bugs_.done_forgets) state_ = InitialState(job().name());
  if (said.has_value()) Say(*said);
  Post(world().Time(0, 20), [this] { Train([this] { Look(); }); });
}

void Worker::EndEvaluation() {
  busy_ = false;
  ++epoch_;
  if (const auto said = member_->Done({}, "")) Say(*said);
  Post(world().Time(0, 20), [this] { Train([this] { Look(); }); });
}

}  // namespace polystill::simulation
