#include "tests/simulation/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "checkpoint/path.h"
#include "runtime/rpc.h"
#include "tests/simulation/teacher.h"
#include "tests/simulation/worker.h"

namespace polystill::simulation {

namespace coord = polystill::coordinator;

namespace {

constexpr Millis kTick{200};

bool IsSend(const coord::Action& action) {
  return std::holds_alternative<coord::SendToWorker>(action) || std::holds_alternative<coord::SendToTeacher>(action);
}

std::optional<int64_t> GenerationOf(const v1::WorkerMessage& message) {
  switch (message.message_case()) {
    case v1::WorkerMessage::kAgreed:
      return message.agreed().generation();
    case v1::WorkerMessage::kInterrupted:
      return message.interrupted().standing().generation();
    case v1::WorkerMessage::kDone:
      return message.done().progress().generation();
    case v1::WorkerMessage::kFailed:
      return message.failed().generation();
    case v1::WorkerMessage::kCheckpointed:
      return message.checkpointed().generation();
    default:
      return std::nullopt;
  }
}

}  // namespace

Coordinator::Coordinator(Cluster* cluster, int number)
    : Process(&cluster->world(), absl::StrCat("coordinator ", number)), cluster_(*cluster) {}

void Coordinator::Start() {
  Begin();
  content_ = cluster_.store().Open();
  const RunShape& run = cluster_.run();
  coord::RunConfig config;
  config.run = "simulated";
  config.term = content_.term;
  config.generation = content_.generation;
  config.wanted_workers = content_.wanted_workers;
  config.store_host = name();
  config.store_port = static_cast<int>(content_.term);
  config.stages = {"index"};
  for (const coord::PlannedJob& planned : run.jobs) config.stages.push_back(planned.job.name());
  config.teachers = run.teachers;
  config.resumed.finished = content_.finished;
  config.resumed.finished.erase("evaluate");
  config.resumed.checkpoints = content_.checkpoints;
  config.resumed.segments = content_.segments;
  world().Note([&] {
    return absl::StrCat(name(), " begins term ", content_.term, " after generation ", content_.generation.number);
  });
  machine_.emplace(std::move(config), world().now());
  Post(world().Chance(30) ? world().Time(0, 12'000) : world().Time(0, 500), [this] { Prepare(); });
  Tick();
}

void Coordinator::Prepare() {
  coord::PreparedJobs prepared;
  prepared.jobs = cluster_.run().jobs;
  Handle(coord::StagesFinished{prepared});
}

void Coordinator::Kill() {
  if (!alive()) return;
  world().Note([&] { return absl::StrCat(name(), " is dead"); });
  cluster_.Bury(this);
  Process::Kill();
}

void Coordinator::Tick() {
  Handle(coord::Tick{});
  Post(
      kTick, [this] { Tick(); }, false);
}

Link* Coordinator::Open(Process* client, Lost lost, coord::StreamId known) {
  auto* made = new Link*(nullptr);
  const std::shared_ptr<Link*> self(made);
  Link* link = cluster_.network().Open(
      client, this, [self, lost] { lost(*self); },
      [this, self] {
        const auto stream = streams_.find(*self);
        if (stream == streams_.end() || links_[stream->second] != *self) return;
        if (!cluster_.bugs().newcomer_is_member) Handle(coord::StreamClosed{stream->second});
      });
  *self = link;
  const coord::StreamId stream = known == 0 ? link->id : known;
  links_[stream] = link;
  streams_[link] = stream;
  return link;
}

Link* Coordinator::Accept(Process* client, const v1::WorkerMessage* hello, const std::string& id, Lost lost) {
  const auto first = first_streams_.find(id);
  if (cluster_.bugs().newcomer_is_member && first != first_streams_.end()) {
    // What it says now, and is told, is the dead member's.
    Link* link = Open(client, std::move(lost), first->second);
    v1::WorkerOrder order;
    order.mutable_welcome()->set_protocol_version(kProtocolVersion);
    order.mutable_welcome()->set_term(content_.term);
    Send(coord::SendToWorker{first->second, order});
    return link;
  }
  Link* link = Open(client, std::move(lost), 0);
  first_streams_[id] = link->id;
  ids_[link->id] = id;
  link->SendUp([this, link, hello = *hello] {
    Handle(coord::StreamOpened{link->id});
    Handle(coord::WorkerSaid{link->id, hello});
  });
  return link;
}

Link* Coordinator::Accept(Process* client, const v1::TeacherMessage* hello, Lost lost) {
  Link* link = Open(client, std::move(lost), 0);
  link->SendUp([this, link, hello = *hello] {
    Handle(coord::StreamOpened{link->id});
    Handle(coord::TeacherSaid{link->id, hello});
  });
  return link;
}

void Coordinator::Hear(const Link* link, const v1::WorkerMessage& message) {
  const coord::StreamId stream = streams_.at(link);
  coord::WorkerSaid said{stream, message};
  if (cluster_.bugs().fenced_checkpoint && message.has_checkpointed() && content_.generation.number > 0) {
    // Whoever wrote it, in whichever generation: it is taken for the last one's.
    auto& written = *said.message.mutable_checkpointed();
    for (const auto& worker : cluster_.workers()) {
      const auto& assignment = worker->member().assignment();
      if (!worker->alive() || assignment.rank() != 0 || assignment.generation() <= written.generation()) continue;
      for (const auto& [other, its_link] : links_) {
        if (its_link->client == worker.get()) said.stream = other;
      }
      const std::string path = written.path();
      written.set_generation(assignment.generation());
      written.set_path(
          checkpoint::CheckpointPath(assignment.job().checkpoints(), written.step(), written.generation()));
      cluster_.history().disk()[written.path()] = cluster_.history().disk()[path];
    }
  }
  CheckStale(message, said);
}

// Words of an older generation are to change nothing.
void Coordinator::CheckStale(const v1::WorkerMessage& message, const coord::Event& event) {
  const std::optional<int64_t> generation = GenerationOf(message);
  // An older coordinator may listen to an older generation, since nothing comes of it.
  const bool stale = generation.has_value() && cluster_.history().IsOfOlderGeneration(*generation);
  if (!stale || content_.term != cluster_.history().term()) return Handle(event);
  // What time alone brings about is done before.
  Handle(coord::Tick{});
  if (!alive()) return;
  const std::string before = machine_->Status(now()).SerializeAsString();
  std::vector<coord::Action> actions = machine_->Handle(event, now());
  // But for what is of no use: a checkpoint that nobody will ever read.
  const bool acts = std::any_of(actions.begin(), actions.end(), [&](const coord::Action& action) {
    const bool deletes =
        std::holds_alternative<coord::DeleteCheckpoint>(action) || std::holds_alternative<coord::ConfirmTerm>(action);
    return !std::holds_alternative<coord::Log>(action) && !(message.has_checkpointed() && deletes);
  });
  if (acts || before != machine_->Status(now()).SerializeAsString()) {
    cluster_.history().ChangedByStale(name(), message.ShortDebugString());
  }
  CarryOut(std::move(actions));
}

void Coordinator::Hear(const Link* link, const v1::TeacherMessage& message) {
  Handle(coord::TeacherSaid{streams_.at(link), message});
}

void Coordinator::Handle(const coord::Event& event) {
  if (alive()) CarryOut(machine_->Handle(event, now()));
}

void Coordinator::CarryOut(std::vector<coord::Action> actions) {
  if (cluster_.bugs().reply_before_durable) std::stable_partition(actions.begin(), actions.end(), IsSend);
  for (const coord::Action& action : actions) {
    if (!alive()) return;
    if (actions_left_ == 0) return Kill();
    if (actions_left_ > 0) --actions_left_;
    if (!CarryOut(action)) return;
  }
}

bool Coordinator::CarryOut(const coord::Action& action) {
  const absl::Status recorded = cluster_.store().Record(content_.term, action);
  if (!recorded.ok()) {
    Handle(coord::Superseded{recorded});
    return false;
  }
  if (const auto* to_worker = std::get_if<coord::SendToWorker>(&action)) Send(*to_worker);
  if (const auto* to_teacher = std::get_if<coord::SendToTeacher>(&action)) Send(*to_teacher);
  if (const auto* close = std::get_if<coord::CloseStream>(&action)) {
    CloseStream(close->stream);
    cluster_.measures().given_up += close->status.message().find("it is heard, but") != absl::string_view::npos ? 1 : 0;
  }
  if (const auto* log = std::get_if<coord::Log>(&action)) {
    cluster_.measures().left_out += log->text.find("is left out from") != std::string::npos ? 1 : 0;
    cluster_.measures().not_reached += log->text.find("is left out for") != std::string::npos ? 1 : 0;
    world().Note([&] { return absl::StrCat(name(), ": ", log->text); });
  }
  if (std::holds_alternative<coord::WriteReport>(action)) {
    Post(Millis(10), [this] {
      Handle(coord::ReportFinished{std::string("report.json")});
      const v1::RunStatus status = machine_->Status(now());
      if (status.state() == v1::RunStatus::STATE_DONE) cluster_.SetDone();
    });
  }
  if (std::holds_alternative<coord::EndRun>(action)) Kill();
  if (alive() && machine_->Status(now()).state() == v1::RunStatus::STATE_FAILED &&
      machine_->Status(now()).reason().find("taken over") == std::string::npos) {
    cluster_.history().Break(absl::StrCat("the run fails: ", machine_->Status(now()).reason()));
  }
  return true;
}

void Coordinator::Send(const coord::SendToWorker& action) {
  const auto found = links_.find(action.stream);
  if (found == links_.end()) return;
  Link* link = found->second;
  auto* worker = static_cast<Worker*>(link->client);
  if (action.order.has_assignment()) {
    const auto& assignment = action.order.assignment();
    cluster_.history().Assigned(assignment, ids_[action.stream]);
  }
  link->SendDown([worker, link, order = action.order] { worker->Hear(link, order); });
}

void Coordinator::Send(const coord::SendToTeacher& action) {
  const auto found = links_.find(action.stream);
  if (found == links_.end()) return;
  Link* link = found->second;
  auto* teacher = static_cast<Teacher*>(link->client);
  link->SendDown([teacher, link, order = action.order] { teacher->Hear(link, order); });
}

void Coordinator::CloseStream(coord::StreamId stream) {
  const auto found = links_.find(stream);
  if (found != links_.end()) cluster_.network().Close(found->second, this);
}

}  // namespace polystill::simulation
