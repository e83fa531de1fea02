#pragma once

#include <cstdint>
#include <vector>

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

// Whether those of the whole step are known without asking the other ranks.
bool AreKnown(const v1::Job& job);

// Those of the whole step, at least 1 each. `summed`: of all ranks' slices together; anything where AreKnown.
LossRows LossRowsOfStep(const v1::Job& job, LossRows summed);

}  // namespace polystill::student_worker
