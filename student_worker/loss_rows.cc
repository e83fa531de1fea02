#include "student_worker/loss_rows.h"

#include <algorithm>

#include "models/outputs.h"

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

bool AreKnown(const v1::Job& job) {
  return std::all_of(job.losses().begin(), job.losses().end(),
                     [&](const v1::Loss& loss) { return IsOfRecords(loss, job.task()); });
}

LossRows LossRowsOfStep(const v1::Job& job, LossRows summed) {
  for (size_t i = 0; i < summed.size(); ++i) {
    if (IsOfRecords(job.losses(static_cast<int>(i)), job.task())) summed[i] = job.plan().batch_size();
    summed[i] = std::max<int64_t>(summed[i], 1);
  }
  return summed;
}

}  // namespace polystill::student_worker
