// What watchers see.
#include <algorithm>

#include "coordinator/run_machine.h"

namespace polystill::coordinator {
namespace {

double SecondsBetween(Instant from, Instant to) { return std::chrono::duration<double>(to - from).count(); }

}  // namespace

RunMachine::StageState* RunMachine::FindStage(const std::string& name) {
  for (StageState& stage : stages_) {
    if (stage.status.name() == name) return &stage;
  }
  return nullptr;
}

void RunMachine::BeginStage(StageState* stage) {
  if (stage->started.has_value()) return;
  // Stages run one after the other.
  for (StageState& earlier : stages_) {
    if (&earlier == stage) break;
    FinishStage(&earlier);
  }
  stage->started = now_;
  ++revision_;
}

void RunMachine::FinishStage(StageState* stage) {
  if (stage->status.finished()) return;
  stage->status.set_finished(true);
  if (stage->started.has_value()) {
    stage->status.set_seconds(stage->seconds_before + SecondsBetween(*stage->started, now_));
  }
  ++revision_;
}

// A step counts once every rank has applied it; each rank tells what all of them have consumed up to its own.
v1::RunStatus::Stage RunMachine::Summed(const StageState& stage) const {
  v1::RunStatus::Stage status = stage.status;
  if (!generation_.has_value() || stage.status.name() != jobs_[next_job_].job.name()) return status;
  const auto& ranks = generation_->ranks;
  const auto told = [](const Rank& rank) { return rank.progress.has_value(); };
  // In a new generation what was seen last stays until all have said where they are.
  if (!std::all_of(ranks.begin(), ranks.end(), told)) return status;
  double loss = 0, data_wait_seconds = 0;
  for (const Rank& rank : ranks) {
    loss += rank.progress->loss() / static_cast<double>(ranks.size());
    data_wait_seconds = std::max(data_wait_seconds, rank.progress->data_wait_seconds());
  }
  const auto fewer = [](const Rank& a, const Rank& b) { return a.progress->step() < b.progress->step(); };
  const v1::WorkerMessage::Progress& last = *std::min_element(ranks.begin(), ranks.end(), fewer)->progress;
  int64_t records = 0;
  for (const auto& [language, count] : last.records()) records += count;
  const bool training = jobs_[next_job_].job.kind() == v1::Job::KIND_TRAIN;
  status.set_done(training ? last.step() : records);
  status.set_records(records);
  *status.mutable_records_by_language() = last.records();
  if (training) status.set_loss(loss);
  status.set_labels(last.labels());
  status.set_label_bytes(last.label_bytes());
  status.set_data_wait_seconds(data_wait_seconds);
  status.set_learning_rate(ranks[0].progress->learning_rate());
  status.set_validation(ranks[0].progress->validation());
  status.set_validation_step(ranks[0].progress->validation_step());
  return status;
}

// Before the generation goes whose ranks have told them.
void RunMachine::KeepSums() {
  if (StageState* stage = FindStage(jobs_[next_job_].job.name())) stage->status = Summed(*stage);
}

void RunMachine::TellMembers() {
  if (!generation_.has_value()) return;
  const PlannedJob& planned = jobs_[next_job_];
  StageState* stage = FindStage(planned.job.name());
  if (stage == nullptr || planned.job.kind() != v1::Job::KIND_TRAIN) return;
  stage->status.set_generation(generation_->number);
  stage->status.set_workers(static_cast<int>(generation_->ranks.size()));
  stage->status.set_workers_wanted(WantedWorkers(planned));
  ++revision_;
}

v1::RunStatus::Stage RunMachine::StageOf(const std::string& name) {
  const StageState* stage = FindStage(name);
  return stage == nullptr ? v1::RunStatus::Stage() : StageOf(*stage, now_);
}

v1::RunStatus::Stage RunMachine::StageOf(const StageState& stage, Instant now) const {
  v1::RunStatus::Stage status = Summed(stage);
  if (stage.started.has_value() && !status.finished()) {
    status.set_seconds(stage.seconds_before + SecondsBetween(*stage.started, now));
  }
  return status;
}

v1::RunStatus RunMachine::Status(Instant now) const {
  v1::RunStatus status;
  status.set_run(config_.run);
  status.set_state(state_);
  status.set_reason(reason_);
  status.set_report(report_);
  for (const std::string& worker : left_out_) status.add_left_out(worker);
  for (const StageState& stage : stages_) *status.add_stages() = StageOf(stage, now);
  const auto under_way =
      std::find_if(stages_.begin(), stages_.end(), [](const auto& s) { return !s.status.finished(); });
  const auto last = stages_.empty() ? stages_.begin() : stages_.end() - 1;
  status.set_current(static_cast<int>(std::min(under_way, last) - stages_.begin()));
  return status;
}

}  // namespace polystill::coordinator
