// What outlives the process: checkpoints that are admitted and dropped, and the jobs and stages of an earlier process.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "checkpoint/path.h"
#include "coordinator/run_machine.h"

namespace polystill::coordinator {

void RunMachine::AdoptStages() {
  for (StageState& stage : stages_) {
    const std::string name = stage.status.name();
    const auto before = config_.resumed.stages.find(name);
    if (before == config_.resumed.stages.end()) continue;
    stage.seconds_before = before->second.seconds();
    *stage.status.mutable_evictions() = before->second.evictions();
    if (!config_.resumed.finished.contains(name)) continue;
    stage.status = before->second;
    stage.status.set_finished(true);
  }
}

bool RunMachine::AdoptInput(const RunInput& input) {
  const std::string change = InputChange(config_.resumed, input);
  if (!change.empty()) {
    End(v1::RunStatus::STATE_FAILED, change);
    return false;
  }
  if (!config_.resumed.inputs.contains(input.key)) actions_.push_back(RecordInput{input.key, input.digest});
  return true;
}

void RunMachine::SkipFinishedJobs() {
  for (; next_job_ < jobs_.size() && config_.resumed.finished.contains(jobs_[next_job_].job.name()); ++next_job_) {
    const v1::Job& job = jobs_[next_job_].job;
    Say(absl::StrCat(job.name(), ": was finished before"));
    if (StageState* stage = FindStage(job.name())) FinishStage(stage);
    OfferPackage(job);
  }
}

// A generation that has no step left writes none: then it is the one of the generation before.
std::string RunMachine::LastCheckpoint(const v1::Job& job, int64_t step) const {
  const auto admitted = checkpoints_.find(job.name());
  if (admitted != checkpoints_.end() && !admitted->second.empty() && admitted->second.back().step == step) {
    return admitted->second.back().path;
  }
  return checkpoint::CheckpointPath(job.checkpoints(), step, generation_->number);
}

void RunMachine::OnCheckpointed(StreamId stream, const v1::WorkerMessage::Checkpointed& written) {
  // Also when the run was stopped meanwhile: then it is the one to resume from.
  if (!generation_.has_value() || generation_->number != written.generation()) return DeleteUnlessAdmitted(written);
  if (generation_->ranks[0].stream != stream) return;
  const v1::Job& job = jobs_[next_job_].job;
  // The coordinator deletes what it has admitted, so it admits nothing but the job's own folders.
  const std::string path = checkpoint::CheckpointPath(job.checkpoints(), written.step(), written.generation());
  if (written.step() < 1 || written.step() > job.steps() || written.path() != path) {
    return Drop(stream,
                absl::InvalidArgumentError(absl::StrCat("checkpointed: ", written.path(), " is no checkpoint of ",
                                                        job.name(), "'s step ", written.step())));
  }
  std::vector<StateStore::Checkpoint>& admitted = checkpoints_[job.name()];
  // A worker that has changed coordinators says some things again; what it tells of may be deleted by now.
  const auto name_of = [](const auto& checkpoint) { return std::pair(checkpoint.generation, checkpoint.step); };
  if (!admitted.empty() && std::pair(written.generation(), written.step()) <= name_of(admitted.back())) return;
  const auto replaced = std::stable_partition(admitted.begin(), admitted.end(),
                                              [&](const auto& checkpoint) { return checkpoint.step < written.step(); });
  std::vector<StateStore::Checkpoint> dropped(replaced, admitted.end());
  admitted.erase(replaced, admitted.end());
  admitted.push_back({written.step(), written.generation(), written.path(), written.weights_digest()});
  actions_.push_back(RecordCheckpoint{job.name(), admitted.back(), StageOf(job.name())});
  for (const StateStore::Checkpoint& checkpoint : dropped) {
    if (checkpoint.path != path) actions_.push_back(DropCheckpoint{job.name(), checkpoint.path});
  }
  KeepCheckpoints(job, std::max<size_t>(job.keep_checkpoints(), 1));
}

void RunMachine::DeleteUnlessAdmitted(const v1::WorkerMessage::Checkpointed& written) {
  if (written.generation() >= last_generation_) return;
  for (const PlannedJob& planned : jobs_) {
    const v1::Job& job = planned.job;
    const std::string path = checkpoint::CheckpointPath(job.checkpoints(), written.step(), written.generation());
    // Which ones are admitted of a job that was finished before this process began is not known.
    const bool known = job.kind() == v1::Job::KIND_TRAIN && !config_.resumed.finished.contains(job.name());
    if (!known || written.path() != path) continue;
    const auto& admitted = checkpoints_[job.name()];
    if (std::any_of(admitted.begin(), admitted.end(), [&](const auto& other) { return other.path == path; })) return;
    actions_.push_back(ConfirmTerm{});
    actions_.push_back(DeleteCheckpoint{path});
    return Say(absl::StrCat("deleting ", path, ": its generation was over before it was written"));
  }
}

bool RunMachine::StrikeRotten(Rank* rank, const absl::Status& why) {
  const auto names = [&](const std::string& path) {
    return !path.empty() && absl::StartsWith(why.message(), absl::StrCat(path, ": "));
  };
  if (!absl::IsDataLoss(why)) return false;
  const std::string& job = jobs_[next_job_].job.name();
  std::vector<StateStore::Checkpoint>& admitted = checkpoints_[job];
  if (admitted.size() > 1 && names(admitted.back().path)) {
    rotten_ = admitted.back().path;
    admitted.pop_back();
    actions_.push_back(DropCheckpoint{job, rotten_, /*rotten=*/true});
    Say(absl::StrCat(job, ": passing over a checkpoint, to that of step ", admitted.back().step, ": ",
                     std::string(why.message())));
  }
  // Every rank that reads it says so.
  if (!names(rotten_)) return false;
  OnInterrupted(rank, why);
  futile_ = 0;
  form_after_ = now_;
  return true;
}

void RunMachine::KeepCheckpoints(const v1::Job& job, size_t count) {
  std::vector<StateStore::Checkpoint>& admitted = checkpoints_[job.name()];
  while (admitted.size() > count) {
    actions_.push_back(DropCheckpoint{job.name(), admitted.front().path});
    admitted.erase(admitted.begin());
  }
}

}  // namespace polystill::coordinator
