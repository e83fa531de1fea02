// Workers and the job they do: hello, assignment, progress, done, failed, gone.
#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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
  if (const auto taken = worker_streams_.find(hello.worker_id()); taken != worker_streams_.end()) {
    if (!hello.has_standing()) {
      return Drop(stream, absl::AlreadyExistsError(absl::StrCat("worker_id ", hello.worker_id(), " is taken")));
    }
    // The worker knew earlier than this process that its last stream had broken.
    Drop(taken->second, absl::AbortedError("the worker came back on another stream"));
  }
  strangers_.erase(stream);
  Worker& worker = workers_[stream];
  worker = {stream, hello.worker_id(), hello.host(), hello.pid(), hello.standing(), {now_}, arrivals_++};
  worker_streams_[worker.id] = stream;
  v1::WorkerOrder order;
  order.mutable_welcome()->set_protocol_version(hello.protocol_version());
  order.mutable_welcome()->set_term(config_.term);
  order.mutable_welcome()->set_run(config_.run);
  actions_.push_back(SendToWorker{stream, std::move(order)});
  ++revision_;
  Say(absl::StrCat("worker ", hello.worker_id(), " (pid ", hello.pid(), " on ", hello.host(), ") joined, ", Here(),
                   " here", Hangs(worker) ? ", but it hangs" : ""));
  LeaveOutNewcomer(worker);
  ComeBack(&worker);
}

Worker* RunMachine::FindWorker(StreamId stream) {
  const auto worker = workers_.find(stream);
  return worker == workers_.end() ? nullptr : &worker->second;
}

Rank* RunMachine::FindRank(StreamId stream, int64_t generation) {
  // What belongs to an earlier generation, or comes after the end, changes nothing.
  if (!running() || !generation_.has_value() || generation_->number != generation) return nullptr;
  const Worker* worker = FindWorker(stream);
  return worker == nullptr ? nullptr : FindRank(*worker);
}

Rank* RunMachine::FindRank(const Worker& worker) {
  return IsMember(worker) ? &generation_->ranks[worker.rank] : nullptr;
}

bool RunMachine::IsMember(const Worker& worker) const {
  return generation_.has_value() && worker.rank < generation_->ranks.size() &&
         generation_->ranks[worker.rank].stream == worker.stream;
}

void RunMachine::OnProgress(Rank* rank, const v1::WorkerMessage::Progress& progress) {
  const auto& before = rank->progress.has_value() ? rank->progress->missing_teachers()
                                                  : v1::WorkerMessage::Progress::default_instance().missing_teachers();
  const auto& missing = progress.missing_teachers();
  Begun(rank);
  missing_due_ |= !std::equal(before.begin(), before.end(), missing.begin(), missing.end());
  rank->progress = progress;
  NoteStep(progress.step());
  ++revision_;
}

void RunMachine::OnDone(Rank* rank, const v1::WorkerMessage::Done& done) {
  const v1::Job& job = jobs_[next_job_].job;
  if (rank->place != Rank::Place::kIn || rank->done) return;
  Begun(rank);
  rank->progress = done.progress();
  rank->digest = done.weights_digest();
  generation_->SetDone(rank, true);
  ++revision_;
  const bool early = job.has_early_stopping() && done.progress().step() < job.steps() && done.progress().step() > 0;
  if (job.kind() == v1::Job::KIND_TRAIN && done.progress().step() != job.steps() && !early) {
    return End(v1::RunStatus::STATE_FAILED,
               absl::StrCat(rank->who, " says done after ", done.progress().step(), " of ", job.steps(), " steps"));
  }
  if (job.kind() == v1::Job::KIND_TRAIN && rank->digest.empty()) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat(rank->who, " says done without a digest of its weights"));
  }
  if (const Rank& first = generation_->ranks[*generation_->first_done]; first.digest != rank->digest) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat("replicas apart: ", first.who, " ends with weights ",
                                                         first.digest, ", but ", rank->who, " with ", rank->digest));
  }
  if (generation_->done == generation_->ranks.size()) FinishJob();
}

void RunMachine::OnFailed(Rank* rank, const v1::WorkerMessage::Failed& failed) {
  const absl::Status why(static_cast<absl::StatusCode>(failed.code()), failed.message());
  if (IsConsequence(failed.code())) return OnInterrupted(rank, why);
  if (StrikeRotten(rank, why)) return;
  if (CanDoWithout(*rank)) return Dismiss(*rank, failed.message());
  End(v1::RunStatus::STATE_FAILED, absl::StrCat(rank->who, ": ", failed.message()));
}

void RunMachine::LoseWorker(const Worker& worker, const std::string& why) {
  ++revision_;
  if (proven_.contains(worker.id)) proven_lost_at_ = now_;
  Rank* rank = FindRank(worker);
  if (rank == nullptr) return Say(absl::StrCat("worker ", worker.id, " left (", why, ")"));
  const bool was_in = rank->place == Rank::Place::kIn;
  generation_->Move(rank, Rank::Place::kGone);
  rank->stream = 0;
  futile_ = 0;
  form_after_ = now_;
  const std::string what = absl::StrCat(rank->who, " is gone: ", why);
  // One that is done with its share may leave, as may one that waits.
  if (running() && was_in && !rank->done) return Break(what);
  Say(what);
}

void RunMachine::FinishJob() {
  const v1::Job& job = jobs_[next_job_].job;
  KeepSums();
  const bool trained = job.kind() == v1::Job::KIND_TRAIN;
  const int64_t step = trained ? generation_->ranks[0].progress->step() : 0;
  if (StageState* stage = FindStage(job.name())) {
    stage->status.clear_slow_workers();
    FinishStage(stage);
  }
  for (auto& [stream, worker] : workers_) worker.slowness = {};
  actions_.push_back(RecordFinishedJob{job.name(), generation_->number, step, trained ? LastCheckpoint(job, step) : "",
                                       generation_->ranks[0].digest, StageOf(job.name())});
  if (trained) {
    KeepCheckpoints(job, 1);
    actions_.push_back(CleanCheckpoints{job.checkpoints(), checkpoints_[job.name()]});
  }
  Say(absl::StrCat(job.name(), ": done"));
  generation_.reset();
  last_call_.reset();
  futile_ = 0;
  form_after_ = now_;
  ++next_job_;
  DiscardServed(job);
  OfferPackage(job);
  SkipFinishedJobs();
  ReportIfDone();
}

void RunMachine::ReportIfDone() {
  if (next_job_ < jobs_.size()) return;
  WriteReport report;
  for (const Teacher& teacher : teachers_) report.teacher_digests[teacher.spec.name()] = teacher.digest;
  actions_.push_back(std::move(report));
}

void RunMachine::OfferPackage(const v1::Job& job) {
  if (!absl::StartsWith(job.name(), kTeacherJob)) return;
  if (Teacher* teacher = FindTeacher(job.name().substr(sizeof(kTeacherJob) - 1))) teacher->package = job.package();
  NoteTeachers();
}

bool RunMachine::IsSaving() const {
  if (state_ != v1::RunStatus::STATE_STOPPED || !generation_.has_value()) return false;
  const auto& ranks = generation_->ranks;
  // Ranks that are not all at work have nothing to save, and may wait in vain for one that has left.
  const bool all_at_work = std::all_of(ranks.begin(), ranks.end(), [](const Rank& rank) {
    return rank.place != Rank::Place::kAwaited && rank.place != Rank::Place::kLeft && rank.progress.has_value() &&
           rank.progress->step() > 0;
  });
  if (!all_at_work) return false;
  return std::any_of(ranks.begin(), ranks.end(),
                     [](const Rank& rank) { return rank.place == Rank::Place::kIn && !rank.done; });
}

}  // namespace polystill::coordinator
