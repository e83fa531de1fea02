#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "checkpoint/safetensors.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/batch.h"

namespace polystill::student_worker {

// What brings a student's features to the width of a teacher's: W [teacher's width, student's width], without bias, one
// for each embedding loss and each pair of layers of a hidden loss. They are trained and checkpointed with the student,
// and no part of its package.

// The projections of a job's losses by name (losses/feature_pairs.h), in the order of the losses; none where no loss is
// on features. Their first values are a pure function of (job.seed, name, widths). `student`: its features and how wide
// each is; `teacher_width`: numbers of a row of a teacher's output. INVALID_ARGUMENT names the loss and the feature
// that the student does not have.
absl::StatusOr<checkpoint::NamedTensors> MakeProjections(const v1::WorkerOrder::Assignment& assignment,
                                                         const std::map<std::string, int64_t>& student,
                                                         const std::function<int64_t(const LabelKind&)>& teacher_width);

// Gives `projections` the values that a checkpoint holds. INVALID_ARGUMENT names a tensor that is missing, surplus or
// of another shape or type.
absl::Status RestoreProjections(const checkpoint::NamedTensors& values, const checkpoint::NamedTensors& projections);

}  // namespace polystill::student_worker
