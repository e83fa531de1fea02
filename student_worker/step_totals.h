#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collectives/group.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/training.pb.h"
#include "student_worker/batch.h"
#include "student_worker/loss_rows.h"

namespace polystill::student_worker {

// What the slices of a step hold together: rows of the losses, records by language, labels. Every rank knows all of it
// before it applies the step, so that what was consumed is a part of the state: a rank that dies takes no count along.
// One small sum that goes on beside the forward pass. Not thread-safe.
class StepTotals {
 public:
  // `languages`: of the corpus, in the same order on every rank. What is referred to outlives this.
  StepTotals(const v1::Job& job, std::vector<std::string> languages, const collectives::Group* group)
      : job_(job), languages_(std::move(languages)), group_(group) {}

  // A collective: begins to add up. Errors as of Group::AllReduceSum; INTERNAL: a language that is none of the corpus.
  absl::Status Begin(const Batch& slice);

  // Then, over how many rows each loss is a mean. Waits for the others only where the job has a loss of tokens.
  absl::StatusOr<LossRows> Rows();
  // Then, what the step consumes. Waits for the others.
  absl::StatusOr<v1::Counted> Counted();

 private:
  absl::Status Finish();

  const v1::Job& job_;
  const std::vector<std::string> languages_;
  const collectives::Group* const group_;
  // [losses + 2 + languages] int64: rows, labels, their bytes, records.
  at::Tensor sums_;
  collectives::Group::Ending ending_;  // null: it has ended
};

}  // namespace polystill::student_worker
