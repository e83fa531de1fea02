#pragma once

#include <ATen/ATen.h>
#include <google/protobuf/repeated_field.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace polystill::losses {

// The labels of one teacher as one codec carried them.
using TeacherKey = std::pair<std::string, v1::Codec>;

// A batch, or a rank's slice of one (rows may be 0).
struct Batch {
  // The student's logits [rows, classes], floating.
  at::Tensor logits;
  // Gold labels [rows] int64; undefined when the job reads none.
  at::Tensor gold;
  // Teachers' logits [rows, classes], floating; another type than the student's is converted.
  std::map<TeacherKey, at::Tensor> teachers;
  // Ids of the records, for messages; rows are numbered when it is empty.
  std::vector<std::string> record_ids;
};

// Sum over a list of losses of weight * (sum over rows), scalar, with the gradient's graph. A loss takes its teacher's
// labels under (loss.teacher, loss.codec); with an empty loss.teacher, the labels of the only teacher that came by that
// codec.
//
// INVALID_ARGUMENT, naming the loss and the record: an empty list or an unknown kind, missing labels, a wrong shape or
// type, a gold label outside the classes, a teacher's logit that is not finite. FAILED_PRECONDITION: the student's own
// logits are not finite (it has diverged).
absl::StatusOr<at::Tensor> EvaluateLosses(const google::protobuf::RepeatedPtrField<v1::Loss>& losses,
                                          const Batch& batch);

}  // namespace polystill::losses
