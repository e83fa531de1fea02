// A worker's stream: hello, orders, heartbeats, and finding a coordinator again.
#include "tests/simulation/worker.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "tests/simulation/coordinator.h"

namespace polystill::simulation {
namespace {

constexpr Millis kHeartbeat{1000};
// For a coordinator to say welcome.
constexpr Millis kHandshake{5000};

int64_t TermOf(const v1::WorkerOrder& order) {
  if (order.has_assignment()) return order.assignment().term();
  return order.has_regroup() ? order.regroup().term() : order.teachers().term();
}

int64_t GenerationOf(const v1::WorkerOrder& order) {
  if (order.has_assignment()) return order.assignment().generation();
  return order.has_regroup() ? order.regroup().generation() : order.teachers().generation();
}

// All that an order can change.
std::string Describe(const student_worker::Member& member) {
  return absl::StrCat(member.standing().ShortDebugString(), " ", static_cast<int>(member.state()), " ",
                      member.must_leave(), member.leave_at_boundary(), " ", member.assignment().teachers_size());
}

using Notes = std::vector<v1::StateNote>;
using v1::WorkerOrder;

student_worker::StateName NameOf(const v1::StateNote& note) { return {note.state_generation(), note.step()}; }

// Rules that bugs put in the place of ChooseSource: the note that comes before all others by `before` wins.
template <typename Before>
absl::StatusOr<student_worker::Source> ChooseBy(const Notes& notes, const WorkerOrder::Assignment& assignment,
                                                const Before& before) {
  auto source = student_worker::ChooseSource(notes, assignment);
  if (!source.ok() || source->kind != student_worker::Source::Kind::kMemory) return source;
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    const student_worker::StateName name = NameOf(notes[rank]);
    if (!name.held() || !before(name, source->state)) continue;
    source->state = name;
    source->rank = static_cast<int>(rank);
    source->digest = notes[rank].digest();
  }
  source->receivers.clear();
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    if (NameOf(notes[rank]) != source->state) source->receivers.push_back(static_cast<int>(rank));
  }
  return source;
}

absl::StatusOr<student_worker::Source> ChooseSmallest(const Notes& notes, const WorkerOrder::Assignment& assignment) {
  return ChooseBy(notes, assignment, std::less<>());
}

absl::StatusOr<student_worker::Source> ChooseMostSteps(const Notes& notes, const WorkerOrder::Assignment& assignment) {
  return ChooseBy(notes, assignment, [](const auto& a, const auto& b) { return a.step > b.step; });
}

}  // namespace

Worker::Worker(Cluster* cluster, int number)
    : Process(&cluster->world(), absl::StrCat("worker ", number)), cluster_(*cluster), bugs_(cluster->bugs()) {}

void Worker::Start() {
  Begin();
  if (bugs_.smallest_state) {
    member_.emplace(ChooseSmallest);
  } else if (bugs_.steps_alone) {
    member_.emplace(ChooseMostSteps);
  } else {
    member_.emplace();
  }
  id_ = absl::StrCat(name(), ".", bugs_.newcomer_is_member ? 0 : life());
  state_ = next_state_ = {};
  said_.clear();
  link_ = nullptr;
  group_ = nullptr;
  busy_ = hangs_ = false;
  hanging_.clear();
  times_ = 1;
  writing_ = 0;
  seen_term_ = seen_generation_ = 0;
  ++epoch_;
  Connect();
  Beat();
}

void Worker::Kill() {
  if (!alive()) return;
  if (group_ != nullptr) cluster_.history().Left(part());
  cluster_.Bury(this);
  Process::Kill();
}

void Worker::Train(Deed deed) { hangs_ ? hanging_.push_back(std::move(deed)) : deed(); }

void Worker::Recover() {
  if (!hangs_) return;
  hangs_ = false;
  for (Deed& deed : std::exchange(hanging_, {})) Post(Millis(0), std::move(deed));
}

bool Worker::IsAwaited() const {
  const bool begun = member_->assignment().generation() == member_->standing().generation();
  return hangs_ && (!begun || (busy_ && member_->must_leave()));
}

void Worker::Connect() {
  if (link_ != nullptr || dismissed_) return;
  Coordinator* coordinator = cluster_.FindCoordinator(this);
  if (coordinator == nullptr) return Post(world().Time(200, 1000), [this] { Connect(); });
  v1::WorkerMessage message;
  auto& hello = *message.mutable_hello();
  hello.set_protocol_version(kProtocolVersion);
  hello.set_worker_id(id_);
  hello.set_host(name());
  const bool first = seen_term_ == 0;
  if (!first) *hello.mutable_standing() = member_->standing();
  welcome_ = false;
  link_ = coordinator->Accept(this, &message, id_, [this](const Link* link) { Lost(link); });
  Post(
      kHandshake,
      [this, link = link_] {
        if (link != link_ || welcome_) return;
        cluster_.network().Close(link, this);
        Lost(link);
      },
      false);
}

void Worker::Lost(const Link* link) {
  if (link != link_) return;
  link_ = nullptr;
  Post(world().Time(100, 1000), [this] { Connect(); });
}

void Worker::Say(const v1::WorkerMessage& message) {
  world().Note([&] { return absl::StrCat(id_, " says ", message.ShortDebugString()); });
  if (!message.has_progress()) said_.push_back(message);
  if (said_.size() > 3) said_.pop_front();
  if (link_ == nullptr || !welcome_) return;
  auto* coordinator = static_cast<Coordinator*>(link_->server);
  link_->SendUp([coordinator, link = link_, message] { coordinator->Hear(link, message); });
}

void Worker::Beat() {
  Post(
      kHeartbeat,
      [this] {
        if (link_ != nullptr && welcome_) {
          v1::WorkerMessage message;
          const bool lies = hangs_ && bugs_.hides_that_it_hangs;
          message.mutable_heartbeat()->set_begun(lies ? member_->standing().generation()
                                                      : member_->assignment().generation());
          message.mutable_heartbeat()->set_idle(lies || (!busy_ && !hangs_));
          auto* coordinator = static_cast<Coordinator*>(link_->server);
          link_->SendUp([coordinator, link = link_, message] { coordinator->Hear(link, message); });
        }
        Beat();
      },
      false);
}

void Worker::Hear(Link* link, const v1::WorkerOrder& order) {
  world().Note([&] {
    return absl::StrCat(
        id_, " hears ", link == link_ ? "" : "late ",
        order.has_assignment()
            ? absl::StrCat("assignment ", order.assignment().generation(), " rank ", order.assignment().rank(), "/",
                           order.assignment().world_size(), " of ", order.assignment().job().name(), " term ",
                           order.assignment().term(), " checkpoint ", order.assignment().checkpoint())
            : order.ShortDebugString());
  });
  if (order.has_welcome()) {
    if (link != link_) return;
    if (!member_->Welcomed(order.welcome().term())) {
      if (!bugs_.no_term_fence) {
        cluster_.network().Close(link, this);
        return Lost(link);
      }
    }
    seen_term_ = std::max(seen_term_, order.welcome().term());
    welcome_ = true;
    if (member_->LastWord().has_value()) Say(*member_->LastWord());
    for (const v1::WorkerMessage& message : std::deque<v1::WorkerMessage>(said_)) {
      if (world().Chance(30)) Say(message);
    }
    return;
  }
  if (order.has_stop()) {
    if (link != link_) return;
    dismissed_ = true;
    cluster_.network().Close(link, this);
    return Kill();
  }
  Obey(order);
}

void Worker::Obey(const v1::WorkerOrder& order) {
  const bool stale = TermOf(order) < seen_term_ || GenerationOf(order) < seen_generation_;
  if (!stale) {
    seen_term_ = TermOf(order);
    seen_generation_ = GenerationOf(order);
  }
  v1::WorkerOrder obeyed = order;
  if (bugs_.no_term_fence && obeyed.has_assignment()) obeyed.mutable_assignment()->set_term(member_->term());
  if (bugs_.no_term_fence && obeyed.has_regroup()) obeyed.mutable_regroup()->set_term(member_->term());
  if (bugs_.no_generation_fence && obeyed.has_regroup()) {
    obeyed.mutable_regroup()->set_generation(member_->standing().generation());
  }
  const std::string before = stale ? Describe(*member_) : "";
  const Member::Reaction reaction = member_->Ordered(obeyed);
  if (stale && (before != Describe(*member_) || reaction.kind != Member::Reaction::Kind::kNone)) {
    cluster_.history().ChangedByStale(id_, order.ShortDebugString());
  }
  if (reaction.say.has_value()) Say(*reaction.say);
  if (reaction.kind == Member::Reaction::Kind::kBreak && group_ != nullptr) {
    // Its own call under way fails at once.
    const int64_t epoch = epoch_;
    group_->Leave(part().rank);
    Post(world().Time(0, 30), [this, epoch] {
      Train([this, epoch] {
        if (epoch == epoch_ && busy_) Leave(absl::OkStatus());
      });
    });
  }
  if (reaction.kind == Member::Reaction::Kind::kLook || reaction.kind == Member::Reaction::Kind::kBreak) {
    Post(world().Time(0, 20), [this] { Train([this] { Look(); }); });
  }
}

}  // namespace polystill::simulation
