#pragma once

#include <ATen/ATen.h>
#include <google/protobuf/repeated_field.h>

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace polystill::losses {

// One output of a teacher as one codec carried it: name, codec, output.
using TeacherKey = std::tuple<std::string, v1::Codec, std::string>;

// A batch, or a rank's slice of one (rows may be 0). Rows are those of records, or of the tokens that are judged.
struct Batch {
  v1::Task task = v1::TASK_CLASSIFICATION;
  // The student's logits [rows, classes], floating.
  at::Tensor logits;
  // Gold labels, int64: classes [rows], of tokens -1 where one is not judged; task multi_label: 0 and 1 [rows, labels].
  // Undefined when the job reads none.
  at::Tensor gold;
  // The student's features [records or tokens, width] by name, of the same type.
  std::map<std::string, at::Tensor> features;
  // Projections by name (losses/feature_pairs.h), [teacher's width, student's width].
  std::map<std::string, at::Tensor> projections;
  // What teachers said: logits [rows, classes], features [records or tokens, width], floating; another type than the
  // student's is converted.
  std::map<TeacherKey, at::Tensor> teachers;
  // Ids of the records, for messages; rows are numbered when it is empty.
  std::vector<std::string> record_ids;
  // Rows of logits that each record has; one each when it is empty.
  std::vector<int64_t> rows_of_records;
};

// For each of a list of losses weight * (sum over rows), scalar, with the gradient's graph, each in the form that the
// task has (losses/losses.h): binary and multi_label with sigmoids, the others with a softmax. A loss takes its
// teacher's labels under (loss.teacher, loss.codec, output); with an empty loss.teacher, those of the only teacher
// whose output came by that codec. A hidden loss is the sum over its pairs of layers.
//
// INVALID_ARGUMENT, naming the loss and the record: an empty list or a kind that is unknown or not the task's, missing
// labels, a wrong shape or type, a gold label outside the classes, a teacher's number that is not finite.
// FAILED_PRECONDITION: the student's own logits or features are not finite (it has diverged).
absl::StatusOr<std::vector<at::Tensor>> EvaluateLosses(const google::protobuf::RepeatedPtrField<v1::Loss>& losses,
                                                       const Batch& batch);

}  // namespace polystill::losses
