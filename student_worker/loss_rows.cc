#include "student_worker/loss_rows.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "models/outputs.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

// Whether the loss has as many rows as the step has records.
bool IsOfRecords(const v1::Loss& loss, v1::Task task) {
  const RowsOf rows = RowsOfLoss(loss);
  return rows == RowsOf::kRecords || (rows == RowsOf::kJudged && !models::JudgesTokens(task));
}

}  // namespace

RowsOf RowsOfLoss(const v1::Loss& loss) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_EMBEDDING:
      return RowsOf::kRecords;
    case v1::LOSS_KIND_HIDDEN:
      return RowsOf::kTokens;
    default:
      return RowsOf::kJudged;
  }
}

LossRows CountLossRows(const v1::Job& job, const Batch& slice) {
  LossRows rows;
  for (const v1::Loss& loss : job.losses()) {
    if (loss.kind() == v1::LOSS_KIND_TASK && slice.judges_tokens) {
      rows.push_back(std::count_if(slice.gold.begin(), slice.gold.end(), [](int64_t gold) { return gold >= 0; }));
    } else {
      rows.push_back(slice.CountRows(RowsOfLoss(loss)));
    }
  }
  return rows;
}

absl::StatusOr<LossRows> CountLossRowsOfStep(const v1::Job& job, const LossRows& slice, collectives::Group* group) {
  const bool counted = std::any_of(job.losses().begin(), job.losses().end(),
                                   [&](const v1::Loss& loss) { return !IsOfRecords(loss, job.task()); });
  LossRows step = slice;
  if (counted) {
    RETURN_IF_ERROR(group->AllReduceSum(
        at::from_blob(step.data(), {static_cast<int64_t>(step.size())}, at::TensorOptions(at::kLong))));
  }
  for (size_t i = 0; i < step.size(); ++i) {
    if (IsOfRecords(job.losses(static_cast<int>(i)), job.task())) step[i] = job.plan().batch_size();
    step[i] = std::max<int64_t>(step[i], 1);
  }
  return step;
}

}  // namespace polystill::student_worker
