#include "coordinator/run_machine.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/utf8.h"

namespace polystill::coordinator {

RunMachine::RunMachine(RunConfig config, Instant now)
    : config_(std::move(config)),
      generation_(config_.generation),
      checkpoints_(config_.resumed.checkpoints),
      last_tick_(now),
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
  if (running()) {
    LoadTeachers();
    StartJobIfReady();
  }
  const bool everybody_left = strangers_.empty() && workers_.empty() && servers_.empty();
  const bool saving = IsSaving();
  if (ended_.has_value() && !saving) StopTeachers();
  if (ended_.has_value() && !left_ && (everybody_left || now_ - *ended_ >= (saving ? kSaveWithin : kLeaveWithin))) {
    StopTeachers();
    left_ = true;
    actions_.push_back(EndRun{});
  }
  return std::move(actions_);
}

void RunMachine::On(const StreamOpened& event) { strangers_[event.stream] = now_; }

void RunMachine::On(const StreamClosed& event) { Forget(event.stream, "its connection closed: the process ended"); }

void RunMachine::On(const WorkerSaid& event) {
  const v1::WorkerMessage& said = event.message;
  if (strangers_.contains(event.stream)) {
    if (Admit(event.stream, said.has_hello(), said.hello().protocol_version())) Welcome(event.stream, said.hello());
    return;
  }
  Worker* worker = FindWorker(event.stream);
  if (worker == nullptr) return;
  worker->heard = now_;
  switch (said.message_case()) {
    case v1::WorkerMessage::kProgress:
      if (Rank* rank = FindRank(event.stream, said.progress().generation())) OnProgress(rank, said.progress());
      return;
    case v1::WorkerMessage::kDone:
      if (Rank* rank = FindRank(event.stream, said.done().progress().generation())) OnDone(rank, said.done());
      return;
    case v1::WorkerMessage::kFailed:
      if (Rank* rank = FindRank(event.stream, said.failed().generation())) OnFailed(rank, said.failed());
      return;
    case v1::WorkerMessage::kCheckpointed:
      return OnCheckpointed(event.stream, said.checkpointed());
    case v1::WorkerMessage::kHeartbeat:
      return;
    default:
      Drop(event.stream,
           absl::InvalidArgumentError("expected progress, checkpointed, done, failed or heartbeat after the hello"));
  }
}

void RunMachine::On(const TeacherSaid& event) {
  const v1::TeacherMessage& said = event.message;
  if (strangers_.contains(event.stream)) {
    if (Admit(event.stream, said.has_hello(), said.hello().protocol_version())) Welcome(event.stream, said.hello());
    return;
  }
  TeacherServer* server = FindServer(event.stream);
  if (server == nullptr) return;
  server->heard = now_;
  switch (said.message_case()) {
    case v1::TeacherMessage::kReady:
      OnReady(server, said.ready());
      return;
    case v1::TeacherMessage::kFailed:
      NoteCause(false,
                absl::StrCat("teacher ", server->teacher, " at ", server->address, ": ", said.failed().message()));
      return;
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
  const auto worker = std::find_if(workers_.begin(), workers_.end(), [&](const auto& w) { return w.stream == stream; });
  if (worker != workers_.end()) {
    const Worker gone = *worker;
    workers_.erase(worker);
    LoseWorker(gone, why);
  }
  const auto server = std::find_if(servers_.begin(), servers_.end(), [&](const auto& s) { return s.stream == stream; });
  if (server != servers_.end()) {
    const TeacherServer gone = *server;
    servers_.erase(server);
    LoseTeacher(gone, why);
  }
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
  DescribeTeachers();
}

void RunMachine::On(const ReportFinished& event) {
  if (!running()) return;
  if (!event.report.ok()) return End(v1::RunStatus::STATE_FAILED, std::string(event.report.status().message()));
  report_ = *event.report;
  End(v1::RunStatus::STATE_DONE, "");
}

void RunMachine::On(const StoreFailed& event) { End(v1::RunStatus::STATE_FAILED, std::string(event.status.message())); }

void RunMachine::On(const StopAsked& event) {
  End(v1::RunStatus::STATE_STOPPED, event.reason.empty() ? "stopped on request" : event.reason);
}

void RunMachine::ForgiveStandstill() {
  const auto pause = now_ - std::exchange(last_tick_, now_);
  if (pause <= kStoodStill) return;
  Say(absl::StrCat("this process stood still for ", std::chrono::round<std::chrono::seconds>(pause).count(), " s"));
  const auto move = [&](Instant* since) { *since = std::min(now_, *since + pause); };
  for (auto& [stream, opened] : strangers_) move(&opened);
  for (Worker& worker : workers_) move(&worker.heard);
  for (TeacherServer& server : servers_) move(&server.heard);
  if (cause_.has_value()) move(&cause_->since);
}

void RunMachine::On(const Tick&) {
  ForgiveStandstill();
  DescribeAgain();
  std::vector<StreamId> silent;
  for (const auto& [stream, opened] : strangers_) {
    if (now_ - opened >= kDeadAfter) silent.push_back(stream);
  }
  for (const Worker& worker : workers_) {
    if (now_ - worker.heard >= kDeadAfter) silent.push_back(worker.stream);
  }
  for (const TeacherServer& server : servers_) {
    if (now_ - server.heard >= kDeadAfter) silent.push_back(server.stream);
  }
  for (const StreamId stream : silent) {
    Drop(stream, absl::DeadlineExceededError(absl::StrCat("nothing heard for ", kDeadAfter.count() / 1000, " s")));
  }
  if (running() && cause_.has_value() && now_ - cause_->since >= kCauseWindow) {
    End(v1::RunStatus::STATE_FAILED, cause_->reason);
  }
}

void RunMachine::NoteCause(bool consequence, const std::string& reason) {
  if (!running()) return;
  Say(reason);
  if (!cause_.has_value()) cause_ = Cause{now_, consequence, reason};
  if (cause_->consequence && !consequence) {
    cause_->consequence = false;
    cause_->reason = reason;
  }
  // Nobody is left who could tell a better cause.
  const bool all_heard = !job_.has_value() || std::all_of(job_->ranks.begin(), job_->ranks.end(),
                                                          [](const Rank& rank) { return rank.lost || rank.done; });
  if (all_heard) End(v1::RunStatus::STATE_FAILED, cause_->reason);
}

void RunMachine::End(v1::RunStatus::State state, const std::string& reason) {
  if (!running()) return;
  state_ = state;
  reason_ = EscapeUnlessUtf8(reason);
  ended_ = now_;
  ++revision_;
  v1::WorkerOrder stop;
  stop.mutable_stop()->set_reason(WhyEnded());
  stop.mutable_stop()->set_state(state_);
  for (const Worker& worker : workers_) actions_.push_back(SendToWorker{worker.stream, stop});
}

std::string RunMachine::WhyEnded() const { return reason_.empty() ? "the run is done" : reason_; }

void RunMachine::StopTeachers() {
  if (std::exchange(teachers_stopped_, true)) return;
  v1::TeacherOrder stop;
  stop.mutable_stop()->set_reason(WhyEnded());
  for (const TeacherServer& server : servers_) actions_.push_back(SendToTeacher{server.stream, stop});
}

}  // namespace polystill::coordinator
