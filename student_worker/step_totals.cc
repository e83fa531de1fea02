#include "student_worker/step_totals.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill::student_worker {

absl::Status StepTotals::Begin(const Batch& slice) {
  std::vector<int64_t> counts = CountLossRows(job_, slice);
  counts.push_back(slice.label_count);
  counts.push_back(slice.label_bytes);
  const size_t first = counts.size();
  counts.resize(first + languages_.size());
  for (const auto& [language, records] : slice.languages) {
    const auto found = std::find(languages_.begin(), languages_.end(), language);
    if (found == languages_.end()) return absl::InternalError(absl::StrCat("'", language, "' is not in the index"));
    counts[first + (found - languages_.begin())] = records;
  }
  sums_ = at::tensor(counts, at::kLong);
  ASSIGN_OR_RETURN(ending_, group_->BeginAllReduceSum(sums_));
  return absl::OkStatus();
}

absl::Status StepTotals::Finish() {
  const collectives::Group::Ending ending = std::exchange(ending_, nullptr);
  return ending ? ending() : absl::OkStatus();
}

absl::StatusOr<LossRows> StepTotals::Rows() {
  if (AreKnown(job_)) return LossRowsOfStep(job_, LossRows(job_.losses_size()));
  RETURN_IF_ERROR(Finish());
  const int64_t* sums = sums_.const_data_ptr<int64_t>();
  return LossRowsOfStep(job_, LossRows(sums, sums + job_.losses_size()));
}

absl::StatusOr<v1::Counted> StepTotals::Counted() {
  RETURN_IF_ERROR(Finish());
  const int64_t* sums = sums_.const_data_ptr<int64_t>() + job_.losses_size();
  v1::Counted counted;
  counted.set_labels(sums[0]);
  counted.set_label_bytes(sums[1]);
  for (size_t i = 0; i < languages_.size(); ++i) {
    if (sums[2 + i] > 0) (*counted.mutable_records())[languages_[i]] = sums[2 + i];
  }
  return counted;
}

}  // namespace polystill::student_worker
