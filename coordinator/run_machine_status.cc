// What watchers see.
#include <algorithm>
#include <limits>

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

// A step counts once every rank has applied it; records and labels add up.
void RunMachine::SumProgress() {
  StageState* stage = FindStage(jobs_[next_job_].job.name());
  if (stage == nullptr) return;
  v1::RunStatus::Stage& status = stage->status;
  int64_t records = 0, labels = 0, label_bytes = 0, steps = std::numeric_limits<int64_t>::max();
  double loss = 0, data_wait_seconds = 0;
  status.clear_records_by_language();
  for (const Rank& rank : job_->ranks) {
    const auto& progress = rank.progress;
    steps = std::min(steps, progress.step());
    loss += progress.loss() / static_cast<double>(job_->ranks.size());
    labels += progress.labels();
    label_bytes += progress.label_bytes();
    data_wait_seconds = std::max(data_wait_seconds, progress.data_wait_seconds());
    for (const auto& [language, count] : progress.records()) {
      (*status.mutable_records_by_language())[language] += count;
      records += count;
    }
  }
  const bool training = jobs_[next_job_].job.kind() == v1::Job::KIND_TRAIN;
  status.set_done(training ? steps : records);
  status.set_records(records);
  if (training) status.set_loss(loss);
  status.set_labels(labels);
  status.set_label_bytes(label_bytes);
  status.set_data_wait_seconds(data_wait_seconds);
  status.set_learning_rate(job_->ranks[0].progress.learning_rate());
  status.set_validation(job_->ranks[0].progress.validation());
  status.set_validation_step(job_->ranks[0].progress.validation_step());
  ++revision_;
}

v1::RunStatus::Stage RunMachine::StageOf(const std::string& name) {
  const StageState* stage = FindStage(name);
  if (stage == nullptr) return {};
  v1::RunStatus::Stage status = stage->status;
  if (stage->started.has_value() && !status.finished()) {
    status.set_seconds(stage->seconds_before + SecondsBetween(*stage->started, now_));
  }
  return status;
}

v1::RunStatus RunMachine::Status(Instant now) const {
  v1::RunStatus status;
  status.set_run(config_.run);
  status.set_state(state_);
  status.set_reason(reason_);
  status.set_report(report_);
  for (const StageState& stage : stages_) {
    v1::RunStatus::Stage* out = status.add_stages();
    *out = stage.status;
    if (stage.started.has_value() && !stage.status.finished()) {
      out->set_seconds(stage.seconds_before + SecondsBetween(*stage.started, now));
    }
  }
  const auto under_way =
      std::find_if(stages_.begin(), stages_.end(), [](const auto& s) { return !s.status.finished(); });
  const auto last = stages_.empty() ? stages_.begin() : stages_.end() - 1;
  status.set_current(static_cast<int>(std::min(under_way, last) - stages_.begin()));
  return status;
}

}  // namespace polystill::coordinator
