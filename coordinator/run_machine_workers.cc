// Workers and the job they do: hello, assignment, progress, done, failed, gone.
#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/run_machine.h"

namespace polystill::coordinator {
namespace {

constexpr char kTeacherJob[] = "teacher:";
constexpr size_t kMaxNameBytes = 256;

// Codes of a worker that lost its peers, or was stopped, rather than failing by itself.
bool IsConsequence(int code) {
  const auto status_code = static_cast<absl::StatusCode>(code);
  return status_code == absl::StatusCode::kAborted || status_code == absl::StatusCode::kCancelled;
}

}  // namespace

void RunMachine::Welcome(StreamId stream, const v1::WorkerMessage::Hello& hello) {
  if (hello.worker_id().empty() || hello.worker_id().size() > kMaxNameBytes || hello.host().size() > kMaxNameBytes) {
    return Drop(stream,
                absl::InvalidArgumentError("hello needs a worker_id of 1 to 256 bytes and a host of at most 256"));
  }
  for (const Worker& worker : workers_) {
    if (worker.id != hello.worker_id()) continue;
    return Drop(stream, absl::AlreadyExistsError(absl::StrCat("worker_id ", hello.worker_id(), " is taken")));
  }
  strangers_.erase(stream);
  workers_.push_back({stream, hello.worker_id(), hello.host(), hello.pid(), now_});
  v1::WorkerOrder order;
  order.mutable_welcome()->set_protocol_version(hello.protocol_version());
  order.mutable_welcome()->set_term(config_.term);
  order.mutable_welcome()->set_run(config_.run);
  actions_.push_back(SendToWorker{stream, std::move(order)});
  ++revision_;
  Say(absl::StrCat("worker ", hello.worker_id(), " (pid ", hello.pid(), " on ", hello.host(), ") joined, ",
                   workers_.size(), " here"));
}

RunMachine::Worker* RunMachine::FindWorker(StreamId stream) {
  for (Worker& worker : workers_) {
    if (worker.stream == stream) return &worker;
  }
  return nullptr;
}

RunMachine::Rank* RunMachine::FindRank(StreamId stream, int64_t generation) {
  // What belongs to an earlier generation, or comes after the end, changes nothing.
  if (!running() || !job_.has_value() || job_->generation != generation) return nullptr;
  for (Rank& rank : job_->ranks) {
    if (rank.stream == stream && !rank.lost && !rank.done) return &rank;
  }
  return nullptr;
}

std::string RunMachine::WaitingFor(const PlannedJob& planned) const {
  std::vector<std::string> missing;
  if (static_cast<int>(workers_.size()) < planned.workers) {
    missing.push_back(absl::StrCat(workers_.size(), " of ", planned.workers, " workers"));
  }
  for (const std::string& teacher : planned.teachers) {
    if (std::string wait = WaitingForTeacher(teacher); !wait.empty()) missing.push_back(std::move(wait));
  }
  return absl::StrJoin(missing, ", ");
}

void RunMachine::StartJobIfReady() {
  if (!prepared_ || job_.has_value() || cause_.has_value() || next_job_ >= jobs_.size()) return;
  const PlannedJob& planned = jobs_[next_job_];
  StageState* stage = FindStage(planned.job.name());
  std::string waiting_for = WaitingFor(planned);
  if (stage != nullptr && stage->status.waiting_for() != waiting_for) {
    stage->status.set_waiting_for(waiting_for);
    ++revision_;
  }
  if (!waiting_for.empty()) return;
  if (stage != nullptr) BeginStage(stage);
  Assign(planned);
}

void RunMachine::Assign(const PlannedJob& planned) {
  job_ = Running{++generation_, {}};
  actions_.push_back(RecordGeneration{generation_});
  v1::WorkerOrder order;
  auto& assignment = *order.mutable_assignment();
  assignment.set_term(config_.term);
  assignment.set_generation(generation_);
  assignment.set_world_size(planned.workers);
  assignment.set_store_host(config_.store_host);
  assignment.set_store_port(config_.store_port);
  assignment.set_store_prefix(absl::StrCat("gen/", generation_));
  *assignment.mutable_job() = planned.job;
  if (const auto& admitted = checkpoints_[planned.job.name()]; !admitted.empty()) {
    assignment.set_checkpoint(admitted.back().path);
    if (StageState* stage = FindStage(planned.job.name())) stage->status.set_done(admitted.back().step);
  }
  for (v1::TeacherEndpoint& endpoint : EndpointsOf(planned)) *assignment.add_teachers() = std::move(endpoint);
  for (int rank = 0; rank < planned.workers; ++rank) {
    const Worker& worker = workers_[rank];
    const std::string who =
        absl::StrCat(planned.job.name(), ": worker ", rank, " (pid ", worker.pid, " on ", worker.host, ")");
    job_->ranks.push_back({worker.stream, who, {}, "", false, false});
    assignment.set_rank(rank);
    actions_.push_back(SendToWorker{worker.stream, order});
  }
  ++revision_;
  Say(absl::StrCat(planned.job.name(), ": generation ", generation_, ": world of ", planned.workers));
}

void RunMachine::OnProgress(Rank* rank, const v1::WorkerMessage::Progress& progress) {
  rank->progress = progress;
  SumProgress();
}

void RunMachine::OnDone(Rank* rank, const v1::WorkerMessage::Done& done) {
  const v1::Job& job = jobs_[next_job_].job;
  rank->progress = done.progress();
  rank->digest = done.weights_digest();
  rank->done = true;
  SumProgress();
  const bool early = job.has_early_stopping() && done.progress().step() < job.steps() && done.progress().step() > 0;
  if (job.kind() == v1::Job::KIND_TRAIN && done.progress().step() != job.steps() && !early) {
    return End(v1::RunStatus::STATE_FAILED,
               absl::StrCat(rank->who, " says done after ", done.progress().step(), " of ", job.steps(), " steps"));
  }
  if (job.kind() == v1::Job::KIND_TRAIN && rank->digest.empty()) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat(rank->who, " says done without a digest of its weights"));
  }
  for (const Rank& other : job_->ranks) {
    if (!other.done || other.digest == rank->digest) continue;
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat("replicas apart: ", other.who, " ends with weights ",
                                                         other.digest, ", but ", rank->who, " with ", rank->digest));
  }
  if (std::all_of(job_->ranks.begin(), job_->ranks.end(), [](const Rank& r) { return r.done; })) FinishJob();
}

void RunMachine::OnFailed(Rank* rank, const v1::WorkerMessage::Failed& failed) {
  rank->lost = true;
  NoteCause(IsConsequence(failed.code()), absl::StrCat(rank->who, ": ", failed.message()));
}

void RunMachine::LoseWorker(const Worker& worker, const std::string& why) {
  ++revision_;
  // One that is done with its share, or has told what was wrong, may leave: the next job waits for another.
  Rank* rank = job_.has_value() ? FindRank(worker.stream, job_->generation) : nullptr;
  if (rank == nullptr) return Say(absl::StrCat("worker ", worker.id, " left (", why, ")"));
  rank->lost = true;
  NoteCause(false, absl::StrCat(rank->who, " is gone: ", why));
}

void RunMachine::FinishJob() {
  const v1::Job& job = jobs_[next_job_].job;
  const bool trained = job.kind() == v1::Job::KIND_TRAIN;
  const int64_t step = trained ? job_->ranks[0].progress.step() : 0;
  if (StageState* stage = FindStage(job.name())) FinishStage(stage);
  actions_.push_back(RecordFinishedJob{job.name(), job_->generation, step, trained ? CheckpointPath(job, step) : "",
                                       job_->ranks[0].digest, StageOf(job.name())});
  if (trained) KeepCheckpoints(job, 1);
  Say(absl::StrCat(job.name(), ": done"));
  job_.reset();
  ++next_job_;
  OfferPackage(job);
  SkipFinishedJobs();
  if (next_job_ < jobs_.size()) return;
  WriteReport report;
  for (const Teacher& teacher : teachers_) report.teacher_digests[teacher.spec.name()] = teacher.digest;
  actions_.push_back(std::move(report));
}

void RunMachine::OfferPackage(const v1::Job& job) {
  if (!absl::StartsWith(job.name(), kTeacherJob)) return;
  if (Teacher* teacher = FindTeacher(job.name().substr(sizeof(kTeacherJob) - 1))) teacher->package = job.package();
}

bool RunMachine::IsSaving() const {
  if (state_ != v1::RunStatus::STATE_STOPPED || !job_.has_value()) return false;
  // Ranks that are not all at work yet have nothing to save, and may wait in vain for one that has left.
  const bool all_at_work =
      std::all_of(job_->ranks.begin(), job_->ranks.end(), [](const Rank& rank) { return rank.progress.step() > 0; });
  if (!all_at_work) return false;
  return std::any_of(workers_.begin(), workers_.end(), [this](const Worker& worker) {
    return std::any_of(job_->ranks.begin(), job_->ranks.end(),
                       [&](const Rank& rank) { return rank.stream == worker.stream && !rank.done; });
  });
}

}  // namespace polystill::coordinator
