#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "collectives/group.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/batch.h"

namespace polystill::student_worker {

// Over how many rows each loss is a mean. Losses of records: over the records of the step, which are as many in every
// step. Losses of tokens: over the tokens of the whole step (hidden), or those of them that are judged (losses on
// logits, when the model judges tokens; the task loss leaves out what has no gold label, -1). Those are counted on each
// rank and added up, so that slices and micro-batches of any size add up to the same mean.

// One a loss of the job.
using LossRows = std::vector<int64_t>;

// The rows that a loss is a mean over.
RowsOf RowsOfLoss(const v1::Loss& loss);

// Those of one rank's slice.
LossRows CountLossRows(const v1::Job& job, const Batch& slice);

// Those of the whole step, at least 1 each. `slice`: this rank's. A collective if the job has a loss of tokens, else
// none. Errors as of Group::AllReduceSum.
absl::StatusOr<LossRows> CountLossRowsOfStep(const v1::Job& job, const LossRows& slice, collectives::Group* group);

}  // namespace polystill::student_worker
