#pragma once

#include <ATen/ATen.h>
#include <google/protobuf/repeated_field.h>

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "losses/chunks.h"
#include "polystill/v1/run.pb.h"
#include "soft_labels/codec.h"

namespace polystill::losses {

// One output of a teacher as one codec carried it: name, codec with its settings, output.
using TeacherKey = std::tuple<std::string, soft_labels::CodecSettings, std::string>;

// What a teacher said, as its codec holds it (soft_labels/array.h). Numbers are floating; another type or device than
// the student's is converted, a chunk of rows at a time.
struct TeacherLabels {
  // dense_*: [rows, width]. hidden_head: [rows, width of the head]. top_k: [rows, k + 1]. sampled: [rows, 1].
  at::Tensor numbers;
  // top_k: [rows, k]. sampled: [ids drawn]. classes: [rows]. int64.
  at::Tensor ids = {};
  // sampled: of each id drawn; int64.
  at::Tensor counts = {};
  // sampled: rows + 1.
  std::vector<int64_t> offsets = {};

  TeacherLabels(at::Tensor numbers = {}) : numbers(std::move(numbers)) {}  // NOLINT: those of dense codecs
};

// A batch, or a rank's slice of one (rows may be 0). Rows are those of records, or of the tokens that are judged.
struct Batch {
  v1::Task task = v1::TASK_CLASSIFICATION;
  // The student's logits [rows, classes], floating; with a head, what it reads [rows, width].
  at::Tensor logits;
  // When set, the student's head: its logits are then computed a chunk of rows at a time (losses/chunks.h).
  Head head = {};
  // Gold labels, int64: classes [rows], of tokens -1 where one is not judged; task multi_label: 0 and 1 [rows, labels].
  // Undefined when the job reads none.
  at::Tensor gold;
  // The student's features [records or tokens, width] by name, of the same type.
  std::map<std::string, at::Tensor> features;
  // Projections by name (losses/feature_pairs.h), [teacher's width, student's width].
  std::map<std::string, at::Tensor> projections;
  // What teachers said: of logits a row for each of the student's, of features one for each record or token.
  std::map<TeacherKey, TeacherLabels> teachers;
  // Output heads of teachers whose labels came by codec hidden_head, by name.
  std::map<std::string, Head> heads;
  // Ids of the records, for messages; rows are numbered when it is empty.
  std::vector<std::string> record_ids;
  // Rows of logits that each record has; one each when it is empty.
  std::vector<int64_t> rows_of_records;
};

// For each of a list of losses weight * (sum over rows), scalar, with the gradient's graph, each in the form that the
// task has (losses/losses.h): binary and multi_label with sigmoids, the others with a softmax. A loss takes its
// teacher's labels under (loss.teacher, its codec's settings, output); with an empty loss.teacher, those of the only
// teacher whose output came by that codec. A hidden loss is the sum over its pairs of layers.
//
// INVALID_ARGUMENT, naming the loss and the record: an empty list, a kind that is unknown or not the task's, a codec
// that does not serve it (soft_labels/codec.h), missing labels, a wrong shape or type, a gold label outside the
// classes, a teacher's number that is not finite. FAILED_PRECONDITION: the student's own logits or features are not
// finite (it has diverged).
absl::StatusOr<std::vector<at::Tensor>> EvaluateLosses(const google::protobuf::RepeatedPtrField<v1::Loss>& losses,
                                                       const Batch& batch);

}  // namespace polystill::losses
