#include "student_worker/replica.h"

#include <utility>

#include "runtime/status.h"
#include "student_worker/training_state.h"

namespace polystill::student_worker {
namespace {

void Add(const v1::Counted& step, v1::Counted* sum) {
  for (const auto& [language, records] : step.records()) (*sum->mutable_records())[language] += records;
  sum->set_labels(sum->labels() + step.labels());
  sum->set_label_bytes(sum->label_bytes() + step.label_bytes());
}

checkpoint::NamedTensors CopyOf(checkpoint::NamedTensors tensors) {
  for (auto& [name, tensor] : tensors) tensor = tensor.detach().clone();
  return tensors;
}

}  // namespace

Replica::Replica(v1::Job job, std::unique_ptr<models::Model> model, checkpoint::NamedTensors projections)
    : job_(std::move(job)),
      model_(std::move(model)),
      projections_(std::move(projections)),
      optimizer_(job_.optimizer(), job_.steps(), Trained()) {}

checkpoint::NamedTensors Replica::Trained() const {
  return checkpoint::TrainedOf(model_->NamedParameters(), projections_);
}

EarlyStopper Replica::Stopper() const {
  EarlyStopper stopper(job_.early_stopping(), early_stopping_);
  if (measured_.has_value()) stopper.Note(step(), *measured_);
  return stopper;
}

absl::Status Replica::Apply(const v1::Counted& counted) {
  if (measured_.has_value()) {
    const EarlyStopper stopper = Stopper();
    if (stopper.state().best_step() == step()) best_ = CopyOf(model_->NamedParameters());
    early_stopping_ = stopper.state();
    measured_.reset();
  }
  RETURN_IF_ERROR(optimizer_.Step());
  Add(counted, &counted_);
  return absl::OkStatus();
}

bool Replica::MeasureIsDue() const {
  return job_.has_early_stopping() && !measured_.has_value() && early_stopping_.last_step() != step() &&
         Stopper().IsDue(step());
}

std::optional<v1::EarlyStoppingState> Replica::early_stopping() const {
  if (!job_.has_early_stopping()) return std::nullopt;
  return Stopper().state();
}

bool Replica::ended() const { return step() == job_.steps() || (job_.has_early_stopping() && Stopper().ended()); }

checkpoint::CheckpointState Replica::State() const {
  checkpoint::CheckpointState state = StateOf(job_, *model_, projections_, optimizer_);
  state.counted = counted_;
  if (job_.has_early_stopping()) state.early_stopping = early_stopping_;
  state.best = best_;
  return state;
}

checkpoint::CheckpointState Replica::Checkpoint(int64_t generation) const {
  checkpoint::CheckpointState state = State();
  state.generation = generation;
  state.early_stopping = early_stopping();
  if (measured_.has_value()) state.best = Best();
  return state;
}

absl::Status Replica::Take(checkpoint::CheckpointState state) {
  RETURN_IF_ERROR(RestoreState(state, job_, model_.get(), projections_, &optimizer_));
  counted_ = std::move(state.counted);
  early_stopping_ = state.early_stopping.value_or(v1::EarlyStoppingState());
  best_ = CopyOf(std::move(state.best));  // it may be views
  measured_.reset();
  return absl::OkStatus();
}

std::string Replica::Digest() const { return checkpoint::StateDigest(State()); }

checkpoint::NamedTensors Replica::Best() const {
  const bool earlier = early_stopping_.best_step() > 0 && Stopper().state().best_step() != step();
  return earlier ? best_ : model_->NamedParameters();
}

}  // namespace polystill::student_worker
