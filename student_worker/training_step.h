#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "collectives/reducer.h"
#include "losses/chunks.h"
#include "losses/memory.h"
#include "models/model.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/batch.h"
#include "student_worker/loss_rows.h"
#include "student_worker/phases.h"
#include "student_worker/step_totals.h"

namespace polystill::student_worker {

// One optimiser step over one global batch, of which this rank has a slice; job.micro_batch records at a time, whose
// gradients are added up before they are reduced. Every rank runs the same steps in the same order, whatever the sizes
// of their slices. What is referred to outlives this object. Not thread-safe.
class TrainingStep {
 public:
  // Applies the gradients, which were reduced whole, of a step that holds `counted`.
  using Apply = std::function<absl::Status(const v1::Counted& counted)>;

  // `projections`: those of the job (student_worker/projections.h); the reducer knows them too. `heads`: of teachers
  // (student_worker/teachers.h), on the model's device and of its type. `totals`: for this object alone.
  TrainingStep(const v1::Job& job, const models::Model& model, const checkpoint::NamedTensors& projections,
               std::map<std::string, losses::Head> heads, StepTotals totals, collectives::Reducer* reducer,
               Apply apply);

  // The sum of the job's losses, each its mean over this rank's slice (0 when that is empty). On an error nothing has
  // been applied, unless it is that of Apply. FAILED_PRECONDITION: logits or gradients that are not finite, or would
  // take more memory than job.loss_memory_mb, said before it is taken; INVALID_ARGUMENT: labels that do not fit, naming
  // the record; ABORTED: a peer is gone.
  absl::StatusOr<double> Run(const Batch& batch);

  const Phases& phases() const { return phases_; }
  // As of Phases.
  double TakeOwnSeconds() { return phases_.TakeOwnSeconds(); }

 private:
  absl::StatusOr<double> RunOrThrow(const Batch& batch);
  // What the losses of the step are divided by: this rank's rows, for what it reports, and the whole step's.
  struct Divisors {
    LossRows slice;
    LossRows step;
  };
  // Records [first, last) of the batch, the step's last ones or not: their part of what Run gives.
  absl::StatusOr<double> RunPiece(const Batch& batch, int64_t first, int64_t last, const Divisors& divisors);
  // Their logits; head_width is set when they are to be computed chunk by chunk.
  losses::LogitShape ShapeOf(const Batch& batch, int64_t first, int64_t last) const;
  absl::Status CheckMemory(const losses::LogitShape& shape, int64_t records) const;
  // Their logits, or what the head reads, and the features that the losses compare, in the model's own type.
  models::Outputs Forward(const Batch& batch, int64_t first, int64_t last, bool head_input) const;

  const v1::Job& job_;
  const models::Model& model_;
  const std::map<std::string, losses::Head> heads_;
  // Names of the student's features that the losses compare.
  const std::vector<std::string> features_;
  const std::map<std::string, at::Tensor> projections_;
  const bool judges_logits_;
  StepTotals totals_;
  collectives::Reducer* const reducer_;
  const Apply apply_;
  Phases phases_;
};

}  // namespace polystill::student_worker
