#include "coordinator/run_machine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/utf8.h"

namespace polystill::coordinator {
namespace {

// Checkpoints of a worker that wait for the jobs to be known, the newest.
constexpr size_t kMostEarly = 16;

bool IsHeartbeat(const Event& event) {
  const auto* worker = std::get_if<WorkerSaid>(&event);
  const auto* teacher = std::get_if<TeacherSaid>(&event);
  return (worker != nullptr && worker->message.has_heartbeat()) ||
         (teacher != nullptr && teacher->message.has_heartbeat());
}

std::optional<int64_t> GenerationOfWord(const v1::WorkerMessage& said) {
  switch (said.message_case()) {
    case v1::WorkerMessage::kAgreed:
      return said.agreed().generation();
    case v1::WorkerMessage::kInterrupted:
      return said.interrupted().standing().generation();
    case v1::WorkerMessage::kDone:
      return said.done().progress().generation();
    case v1::WorkerMessage::kFailed:
      return said.failed().generation();
    default:
      return std::nullopt;
  }
}

}  // namespace

RunMachine::RunMachine(RunConfig config, Instant now)
    : config_(std::move(config)),
      began_(now),
      last_generation_(config_.generation.number),
      wanted_workers_(static_cast<int>(config_.wanted_workers)),
      form_after_(now),
      checkpoints_(config_.resumed.checkpoints),
      last_tick_(now),
      compared_(now),
      confirmed_(now),
      now_(now) {
  for (const v1::Teacher& spec : config_.teachers) teachers_.push_back({spec, spec.package(), "", std::nullopt});
  for (const std::string& name : config_.stages) {
    StageState stage;
    stage.status.set_name(name);
    stage.status.set_loss(std::numeric_limits<double>::quiet_NaN());
    stages_.push_back(std::move(stage));
  }
  AdoptStages();
}

std::vector<Action> RunMachine::Handle(const Event& event, Instant now) {
  now_ = now;
  actions_.clear();
  std::visit([this](const auto& e) { On(e); }, event);
  // Most of what is said changes nothing.
  if (!IsHeartbeat(event) || std::exchange(decide_due_, false)) Decide();
  return std::move(actions_);
}

void RunMachine::Decide() {
  if (running()) {
    LoadTeachers();
    TellTeachers();
    GoOn();
  }
  const bool everybody_left = strangers_.empty() && workers_.empty() && servers_.empty();
  const bool saving = IsSaving();
  if (ended_.has_value() && !saving) StopTeachers();
  if (ended_.has_value() && !left_ && (everybody_left || now_ - *ended_ >= (saving ? kSaveWithin : kLeaveWithin))) {
    StopTeachers();
    left_ = true;
    actions_.push_back(EndRun{});
  }
}

void RunMachine::On(const StreamOpened& event) { strangers_[event.stream] = {now_}; }

void RunMachine::On(const StreamClosed& event) { Forget(event.stream, "its connection closed: the process ended"); }

void RunMachine::On(const WorkerSaid& event) {
  const v1::WorkerMessage& said = event.message;
  if (strangers_.contains(event.stream)) {
    if (Admit(event.stream, said.has_hello(), said.hello().protocol_version())) Welcome(event.stream, said.hello());
    return;
  }
  Worker* worker = FindWorker(event.stream);
  if (worker == nullptr) return;
  worker->heard = {now_};
  if (said.has_heartbeat()) return OnHeartbeat(worker, said.heartbeat());
  if (HearLater(event)) return;
  switch (said.message_case()) {
    case v1::WorkerMessage::kProgress:
      if (Rank* rank = FindRank(event.stream, said.progress().generation())) OnProgress(rank, said.progress());
      return;
    case v1::WorkerMessage::kAgreed:
      if (Rank* rank = FindRank(event.stream, said.agreed().generation())) OnAgreed(rank, said.agreed());
      return;
    case v1::WorkerMessage::kInterrupted:
      if (Rank* rank = FindRank(event.stream, said.interrupted().standing().generation())) {
        const v1::Standing& standing = said.interrupted().standing();
        if (standing.step() >= 0) rank->held = {standing.state_generation(), standing.step()};
        OnInterrupted(
            rank, absl::Status(static_cast<absl::StatusCode>(said.interrupted().code()), said.interrupted().reason()));
      }
      return;
    case v1::WorkerMessage::kDone:
      if (Rank* rank = FindRank(event.stream, said.done().progress().generation())) OnDone(rank, said.done());
      return;
    case v1::WorkerMessage::kFailed:
      if (Rank* rank = FindRank(event.stream, said.failed().generation())) OnFailed(rank, said.failed());
      return;
    case v1::WorkerMessage::kCheckpointed:
      return OnCheckpointed(event.stream, said.checkpointed());
    default:
      Drop(event.stream,
           absl::InvalidArgumentError("expected progress, checkpointed, agreed, interrupted, done, failed "
                                      "or heartbeat after the hello"));
  }
}

// Before the jobs are known, words of the last generation wait; whose progress comes again.
bool RunMachine::HearLater(const WorkerSaid& event) {
  if (prepared_ || !running() || config_.generation.members.empty()) return false;
  if (event.message.has_progress()) return true;
  Early& early = early_[event.stream];
  const std::optional<int64_t> generation = GenerationOfWord(event.message);
  if (event.message.has_checkpointed()) {
    early.checkpoints.push_back(event);
    if (early.checkpoints.size() > kMostEarly) early.checkpoints.pop_front();
  } else if (!generation.has_value()) {
    return false;
  } else if (*generation == config_.generation.number && !(event.message.has_agreed() && early.word.has_value())) {
    // Some things are said again after a reconnection, and then in any order: whoever had left or was done had agreed.
    early.word = event;
  }
  return true;
}

void RunMachine::On(const TeacherSaid& event) {
  const v1::TeacherMessage& said = event.message;
  if (strangers_.contains(event.stream)) {
    if (Admit(event.stream, said.has_hello(), said.hello().protocol_version())) Welcome(event.stream, said.hello());
    return;
  }
  TeacherServer* server = FindServer(event.stream);
  if (server == nullptr) return;
  server->heard = {now_};
  switch (said.message_case()) {
    case v1::TeacherMessage::kReady:
      OnReady(server, said.ready());
      return;
    case v1::TeacherMessage::kFailed:
      return End(v1::RunStatus::STATE_FAILED,
                 absl::StrCat("teacher ", server->teacher, " at ", server->address, ": ", said.failed().message()));
    case v1::TeacherMessage::kHeartbeat:
      return;
    default:
      Drop(event.stream, absl::InvalidArgumentError("expected ready, failed or heartbeat after the hello"));
  }
}

bool RunMachine::Admit(StreamId stream, bool is_hello, int protocol_version) {
  absl::Status status;
  if (!is_hello) {
    status = absl::InvalidArgumentError("the first message must be hello");
  } else if (!running()) {
    status = absl::UnavailableError(absl::StrCat("run ", config_.run, " has ended"));
  } else {
    status = CheckProtocolVersion(protocol_version);
  }
  if (!status.ok()) Drop(stream, status);
  return status.ok();
}

void RunMachine::Drop(StreamId stream, absl::Status status) {
  const std::string why(status.message());
  actions_.push_back(CloseStream{stream, std::move(status)});
  Forget(stream, why);
}

void RunMachine::Forget(StreamId stream, const std::string& why) {
  strangers_.erase(stream);
  early_.erase(stream);
  if (const auto worker = workers_.extract(stream)) {
    worker_streams_.erase(worker.mapped().id);
    LoseWorker(worker.mapped(), why);
  }
  if (const auto server = servers_.extract(stream)) LoseTeacher(server.mapped(), why);
}

void RunMachine::On(const StageProgress& event) {
  StageState* stage = FindStage(event.stage);
  if (stage == nullptr || !running()) return;
  BeginStage(stage);
  stage->status.set_done(event.done);
  stage->status.set_total(event.total);
  stage->status.set_records(event.records);
  auto& by_language = *stage->status.mutable_records_by_language();
  by_language.clear();
  by_language.insert(event.records_by_language.begin(), event.records_by_language.end());
  ++revision_;
}

void RunMachine::On(const StagesFinished& event) {
  if (!running()) return;
  if (!event.prepared.ok()) return End(v1::RunStatus::STATE_FAILED, std::string(event.prepared.status().message()));
  for (const PlannedJob& planned : event.prepared->jobs) {
    const std::string change = PlanChange(config_.resumed, planned.job.name(), planned.job.plan());
    if (!change.empty()) return End(v1::RunStatus::STATE_FAILED, change);
  }
  for (const RunInput& input : event.prepared->inputs) {
    if (!AdoptInput(input)) return;
  }
  prepared_ = true;
  jobs_ = event.prepared->jobs;
  for (StageState& stage : stages_) {
    if (stage.started.has_value()) FinishStage(&stage);
  }
  for (const auto& [job, total] : event.prepared->totals) {
    if (StageState* stage = FindStage(job)) stage->status.set_total(total);
  }
  for (const PlannedJob& planned : jobs_) {
    if (planned.job.kind() != v1::Job::KIND_TRAIN) continue;
    actions_.push_back(RecordSegment{planned.job.name(), planned.job.plan()});
  }
  if (const std::string& digest = event.prepared->tokenizer_digest; !digest.empty()) {
    actions_.push_back(RecordFinishedJob{"tokenizer", 0, 0, "", digest, StageOf("tokenizer")});
  }
  SkipFinishedJobs();
  ReportIfDone();
  AwaitMembers();
  DescribeTeachers();
  for (const auto& [stream, early] : std::exchange(early_, {})) {
    // Rank 0 says of its last checkpoint that it is written before it says that it is done.
    for (const WorkerSaid& checkpoint : early.checkpoints) On(checkpoint);
    if (early.word.has_value()) On(*early.word);
  }
}

void RunMachine::On(const ReportFinished& event) {
  if (!running()) return;
  if (!event.report.ok()) return End(v1::RunStatus::STATE_FAILED, std::string(event.report.status().message()));
  report_ = *event.report;
  End(v1::RunStatus::STATE_DONE, "");
}

void RunMachine::On(const StoreFailed& event) { End(v1::RunStatus::STATE_FAILED, std::string(event.status.message())); }

void RunMachine::On(const Superseded& event) {
  state_ = v1::RunStatus::STATE_FAILED;
  reason_ = std::string(event.status.message());
  ended_ = now_;
  // Workers and teachers are the later coordinator's by now.
  teachers_stopped_ = left_ = true;
  ++revision_;
  actions_.push_back(EndRun{});
}

void RunMachine::On(const ScaleAsked& event) {
  if (!running()) return;
  wanted_workers_ = event.workers;
  actions_.push_back(RecordWantedWorkers{event.workers});
  Say(absl::StrCat("asked for ", event.workers, " workers"));
  TellMembers();
}

void RunMachine::On(const StopAsked& event) {
  End(v1::RunStatus::STATE_STOPPED, event.reason.empty() ? "stopped on request" : event.reason);
}

void RunMachine::ForgiveStandstill() {
  const auto pause = now_ - std::exchange(last_tick_, now_);
  const bool again = std::exchange(stood_still_, pause > kStoodStill);
  if (!stood_still_) return;
  Say(absl::StrCat("this process stood still for ", std::chrono::round<std::chrono::seconds>(pause).count(), " s"));
  const auto move = [&](Instant* since) { *since = std::min(now_, *since + pause); };
  // When every tick is late, whoever is still there is heard between two of them.
  const auto forgive = [&](Heard* heard) {
    if (!std::exchange(heard->forgiven, true)) move(&heard->at);
  };
  for (auto& [stream, opened] : strangers_) forgive(&opened);
  for (auto& [stream, worker] : workers_) forgive(&worker.heard);
  for (auto& [stream, server] : servers_) forgive(&server.heard);
  if (again) return;
  for (auto& [stream, worker] : workers_) {
    if (worker.idles.has_value()) move(&*worker.idles);
  }
  if (generation_.has_value()) {
    if (generation_->first_left.has_value()) move(&*generation_->first_left);
    for (Rank& rank : generation_->ranks) {
      if (rank.ordered.has_value()) move(&*rank.ordered);
    }
  }
  move(&began_);
  if (last_call_.has_value()) move(&*last_call_);
  if (form_after_ > now_ - pause) form_after_ += pause;
}

void RunMachine::On(const Tick&) {
  ForgiveStandstill();
  missing_due_ = true;
  if (now_ - confirmed_ >= kConfirmEvery) {
    confirmed_ = now_;
    actions_.push_back(ConfirmTerm{});
  }
  DescribeAgain();
  std::vector<StreamId> silent;
  for (const auto& [stream, opened] : strangers_) {
    if (now_ - opened.at >= kDeadAfter) silent.push_back(stream);
  }
  for (const auto& [stream, worker] : workers_) {
    if (now_ - worker.heard.at >= kDeadAfter) silent.push_back(stream);
  }
  for (const auto& [stream, server] : servers_) {
    if (now_ - server.heard.at >= kDeadAfter) silent.push_back(stream);
  }
  for (const StreamId stream : silent) {
    Drop(stream, absl::DeadlineExceededError(absl::StrCat("nothing heard for ", kDeadAfter.count() / 1000, " s")));
  }
  suspects_.Expire(now_);
  if (!running()) return;
  GiveUpAwaited();
  GiveUpHanging();
  CompareMembers();
}

void RunMachine::End(v1::RunStatus::State state, const std::string& reason) {
  if (!running()) return;
  state_ = state;
  reason_ = EscapeUnlessUtf8(reason);
  ended_ = now_;
  ++revision_;
  actions_.push_back(ConfirmTerm{});
  v1::WorkerOrder stop;
  stop.mutable_stop()->set_reason(WhyEnded());
  stop.mutable_stop()->set_state(state_);
  for (const auto& [stream, worker] : workers_) actions_.push_back(SendToWorker{stream, stop});
}

std::string RunMachine::WhyEnded() const { return reason_.empty() ? "the run is done" : reason_; }

void RunMachine::StopTeachers() {
  if (std::exchange(teachers_stopped_, true)) return;
  v1::TeacherOrder stop;
  stop.mutable_stop()->set_reason(WhyEnded());
  for (const auto& [stream, server] : servers_) actions_.push_back(SendToTeacher{stream, stop});
}

}  // namespace polystill::coordinator
