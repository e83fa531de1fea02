#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/checkpoint.h"
#include "models/model.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/early_stopping.h"
#include "student_worker/optimizer.h"

namespace polystill::student_worker {

// What a worker holds of a training: everything that the next step follows from, but for the records. It outlives the
// generations; replicas with the same name of state (student_worker/lineage.h) are equal, bit for bit. Not thread-safe.
//
// A measurement of early stopping is made between two steps by all ranks together, and belongs to the state only from
// the next step on: a rank that was torn out of it and one that was not hold the same.
class Replica {
 public:
  // The state before the first step. The model is on its device; so are the projections.
  Replica(v1::Job job, std::unique_ptr<models::Model> model, checkpoint::NamedTensors projections);

  const models::Model& model() const { return *model_; }
  const checkpoint::NamedTensors& projections() const { return projections_; }
  // What is trained: the model's parameters, then the projections.
  checkpoint::NamedTensors Trained() const;
  int64_t step() const { return optimizer_.step(); }
  // What all ranks together have consumed; the time that they waited is this rank's.
  const v1::Counted& counted() const { return counted_; }
  void Waited(double seconds) { counted_.set_data_wait_seconds(counted_.data_wait_seconds() + seconds); }

  // Applies the gradients in place. `counted`: of the whole step. FAILED_PRECONDITION when they are not finite; nothing
  // has been applied then.
  absl::Status Apply(const v1::Counted& counted);

  // Whether the metric of early stopping is to be measured before anything else; and what it was.
  bool MeasureIsDue() const;
  void NoteMeasured(double value) { measured_ = value; }
  // The last measurement counts in full again: it is to be made once more.
  void ForgetMeasured() { measured_.reset(); }
  // With what was measured since the last step; unset without early stopping.
  std::optional<v1::EarlyStoppingState> early_stopping() const;
  // Every step is done, or early stopping says so.
  bool ended() const;

  // As a checkpoint holds it, with what was measured since the last step: views of the tensors, not copies.
  checkpoint::CheckpointState Checkpoint(int64_t generation) const;
  // Without that: what equal replicas hold, and a peer receives. Views.
  checkpoint::CheckpointState State() const;
  // Puts the replica where it was then. Errors as of RestoreState; the replica may hold no state then.
  absl::Status Take(checkpoint::CheckpointState state);
  // SHA-256 of State() but for the time waited, lower-case hex.
  std::string Digest() const;

  // The parameters that the job ends with: those of early stopping's best step, where there is one. Views.
  checkpoint::NamedTensors Best() const;

 private:
  EarlyStopper Stopper() const;

  const v1::Job job_;
  const std::unique_ptr<models::Model> model_;
  const checkpoint::NamedTensors projections_;
  Optimizer optimizer_;
  v1::Counted counted_;
  v1::EarlyStoppingState early_stopping_;
  checkpoint::NamedTensors best_;  // the parameters of early stopping's best step
  std::optional<double> measured_;
};

}  // namespace polystill::student_worker
