#include "losses/weighted.h"

#include <optional>

#include "losses/feature_losses.h"
#include "losses/feature_pairs.h"
#include "losses/losses.h"
#include "models/outputs.h"
#include "runtime/status.h"

namespace polystill::losses {
namespace {

std::string RecordOf(const Batch& batch, int64_t row) {
  int64_t end = 0;
  for (size_t record = 0; record < batch.record_ids.size(); ++record) {
    end += batch.rows_of_records.empty() ? 1 : batch.rows_of_records[record];
    if (row < end) return absl::StrCat("record '", batch.record_ids[record], "'");
  }
  return absl::StrCat("row ", row);
}

// The first true of [rows] or of [rows, classes], if any: its row.
std::optional<int64_t> FirstBadRow(const at::Tensor& bad) {
  if (!bad.any().item<bool>()) return std::nullopt;
  return bad.nonzero()[0][0].item<int64_t>();
}

absl::Status CheckStudent(const Batch& batch) {
  if (!batch.logits.defined() || batch.logits.dim() != 2 || !batch.logits.is_floating_point()) {
    return absl::InvalidArgumentError("the student's logits must be floating [rows, classes]");
  }
  if (const auto row = FirstBadRow(at::isfinite(batch.logits).logical_not())) {
    return absl::FailedPreconditionError(
        absl::StrCat(RecordOf(batch, *row),
                     ": the student's logits are not finite: training has diverged; lower "
                     "optimizer.lr or set optimizer.clip_norm"));
  }
  return absl::OkStatus();
}

absl::Status CheckGold(const Batch& batch) {
  if (!batch.gold.defined()) return absl::InvalidArgumentError("needs gold labels, and the batch carries none");
  const int64_t rows = batch.logits.size(0), logits = batch.logits.size(1);
  const bool many = batch.task == v1::TASK_MULTI_LABEL;
  const std::vector<int64_t> shape = many ? std::vector<int64_t>{rows, logits} : std::vector<int64_t>{rows};
  if (batch.gold.sizes() != at::IntArrayRef(shape) || batch.gold.scalar_type() != at::kLong) {
    return absl::InvalidArgumentError(absl::StrCat("gold labels must be int64 ", c10::str(at::IntArrayRef(shape)),
                                                   ", are ", c10::str(batch.gold.sizes())));
  }
  // A label that holds or not is 1 or 0, and so is the second of two classes.
  const int64_t classes = models::HasSigmoids(batch.task) ? 2 : logits;
  const int64_t least = batch.task == v1::TASK_TOKEN_CLASSIFICATION ? -1 : 0;
  const at::Tensor outside = batch.gold.lt(least).logical_or(batch.gold.ge(classes));
  if (const auto row = FirstBadRow(outside)) {
    return absl::InvalidArgumentError(many ? absl::StrCat(RecordOf(batch, *row), ": a gold label is neither 0 nor 1")
                                           : absl::StrCat(RecordOf(batch, *row), ": gold label ",
                                                          batch.gold[*row].item<int64_t>(), " is not one of ", classes,
                                                          " classes"));
  }
  return absl::OkStatus();
}

// An output of a loss's teacher; null when there is none.
const at::Tensor* FindTeacher(const v1::Loss& loss, const std::string& output, const Batch& batch) {
  const at::Tensor* found = nullptr;
  for (const auto& [key, numbers] : batch.teachers) {
    const auto& [teacher, codec, name] = key;
    if (codec != loss.codec() || name != output || (!loss.teacher().empty() && teacher != loss.teacher())) continue;
    if (found != nullptr) return nullptr;  // an unnamed teacher must be the only one
    found = &numbers;
  }
  return found;
}

// The teacher's logits in the student's type.
absl::StatusOr<at::Tensor> TeacherLogits(const v1::Loss& loss, const Batch& batch) {
  const at::Tensor* logits = FindTeacher(loss, models::kLogits, batch);
  if (logits == nullptr || !logits->defined()) {
    return absl::InvalidArgumentError(absl::StrCat("needs the labels of teacher '", loss.teacher(), "' by codec ",
                                                   v1::Codec_Name(loss.codec()), ", and the batch carries none"));
  }
  if (logits->sizes() != batch.logits.sizes() || !logits->is_floating_point()) {
    return absl::InvalidArgumentError(absl::StrCat("teacher '", loss.teacher(), "' gave ", c10::str(logits->sizes()),
                                                   ", the student has ", c10::str(batch.logits.sizes())));
  }
  if (const auto row = FirstBadRow(at::isfinite(*logits).logical_not())) {
    return absl::InvalidArgumentError(
        absl::StrCat(RecordOf(batch, *row), ": teacher '", loss.teacher(), "' gave a logit that is not finite"));
  }
  return logits->to(batch.logits.options());
}

// The student's feature of a pair, its projection, and the teacher's feature in the student's type.
struct Features {
  at::Tensor student;
  at::Tensor projection;
  at::Tensor teacher;
};

absl::StatusOr<Features> FeaturesOf(const v1::Loss& loss, const FeaturePair& pair, const Batch& batch) {
  const auto student = batch.features.find(pair.student);
  const auto projection = batch.projections.find(pair.projection);
  const at::Tensor* teacher = FindTeacher(loss, pair.teacher, batch);
  if (student == batch.features.end() || projection == batch.projections.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs the student's '", pair.student, "' and '", pair.projection, "', and the batch lacks one"));
  }
  if (teacher == nullptr || !teacher->defined()) {
    return absl::InvalidArgumentError(absl::StrCat("needs '", pair.teacher, "' of teacher '", loss.teacher(),
                                                   "' by codec ", v1::Codec_Name(loss.codec()),
                                                   ", and the batch carries none"));
  }
  const Features features{student->second, projection->second, teacher->to(student->second.options())};
  const at::IntArrayRef sizes = features.student.sizes();
  if (sizes.size() != 2 || features.teacher.dim() != 2 || features.teacher.size(0) != sizes[0] ||
      features.projection.sizes() != at::IntArrayRef({features.teacher.size(1), sizes[1]})) {
    return absl::InvalidArgumentError(absl::StrCat("'", pair.teacher, "' of teacher '", loss.teacher(), "' is ",
                                                   c10::str(features.teacher.sizes()), ", '", pair.student,
                                                   "' of the student ", c10::str(sizes), ", their projection ",
                                                   c10::str(features.projection.sizes())));
  }
  if (const auto row = FirstBadRow(at::isfinite(features.teacher).logical_not())) {
    return absl::InvalidArgumentError(absl::StrCat("row ", *row, " of '", pair.teacher, "' of teacher '",
                                                   loss.teacher(), "' holds a number that is not finite"));
  }
  if (const auto row = FirstBadRow(at::isfinite(features.student).logical_not())) {
    return absl::FailedPreconditionError(absl::StrCat("row ", *row, " of the student's '", pair.student,
                                                      "' is not finite: training has diverged; lower optimizer.lr or "
                                                      "set optimizer.clip_norm"));
  }
  return features;
}

// The sum over the pairs of a loss.
absl::StatusOr<at::Tensor> EvaluateFeatures(const v1::Loss& loss, const std::vector<FeaturePair>& pairs,
                                            const Batch& batch) {
  at::Tensor sum;
  for (const FeaturePair& pair : pairs) {
    ASSIGN_OR_RETURN(const Features features, FeaturesOf(loss, pair, batch));
    const auto distance = loss.distance() == v1::Loss::DISTANCE_COSINE ? FeatureCosine : FeatureMse;
    const at::Tensor value = distance(features.student, features.projection, features.teacher);
    sum = sum.defined() ? sum + value : value;
  }
  if (!sum.defined()) return absl::InvalidArgumentError("names no layers");
  return sum;
}

absl::Status CheckTemperature(const v1::Loss& loss) {
  return loss.temperature() > 0 ? absl::OkStatus() : absl::InvalidArgumentError("temperature must be above 0");
}

absl::StatusOr<at::Tensor> EvaluateSoftmax(const v1::Loss& loss, const Batch& batch, const at::Tensor& teacher) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_SOFT_LABEL:
      RETURN_IF_ERROR(CheckTemperature(loss));
      return SoftLabel(batch.logits, teacher, loss.temperature());
    case v1::LOSS_KIND_HARD_LABEL:
      return HardLabel(batch.logits, teacher);
    case v1::LOSS_KIND_LOGIT_MSE:
      return LogitMse(batch.logits, teacher);
    case v1::LOSS_KIND_BINARY:
      return absl::InvalidArgumentError("goes with tasks binary and multi_label; this task's is soft_label");
    default:
      return absl::InvalidArgumentError("is not a kind of loss that this build knows");
  }
}

absl::StatusOr<at::Tensor> EvaluateSigmoid(const v1::Loss& loss, const Batch& batch, const at::Tensor& teacher) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_BINARY:
      RETURN_IF_ERROR(CheckTemperature(loss));
      return Binary(batch.logits, teacher, loss.temperature());
    case v1::LOSS_KIND_HARD_LABEL:
      return BinaryHardLabel(batch.logits, teacher);
    case v1::LOSS_KIND_LOGIT_MSE:
      return BinaryLogitMse(batch.logits, teacher);
    case v1::LOSS_KIND_SOFT_LABEL:
      return absl::InvalidArgumentError("goes with tasks of one class of several; this task's is binary");
    default:
      return absl::InvalidArgumentError("is not a kind of loss that this build knows");
  }
}

absl::StatusOr<at::Tensor> Evaluate(const v1::Loss& loss, int place, const Batch& batch) {
  if (loss.kind() == v1::LOSS_KIND_EMBEDDING || loss.kind() == v1::LOSS_KIND_HIDDEN) {
    return EvaluateFeatures(loss, FeaturePairsOf(loss, place), batch);
  }
  const bool sigmoids = models::HasSigmoids(batch.task);
  if (loss.kind() == v1::LOSS_KIND_TASK) {
    RETURN_IF_ERROR(CheckGold(batch));
    if (!sigmoids) return CrossEntropy(batch.logits, batch.gold);
    return BinaryCrossEntropy(batch.logits, batch.gold.view_as(batch.logits));
  }
  ASSIGN_OR_RETURN(const at::Tensor teacher, TeacherLogits(loss, batch));
  return sigmoids ? EvaluateSigmoid(loss, batch, teacher) : EvaluateSoftmax(loss, batch, teacher);
}

}  // namespace

absl::StatusOr<std::vector<at::Tensor>> EvaluateLosses(const google::protobuf::RepeatedPtrField<v1::Loss>& losses,
                                                       const Batch& batch) {
  if (losses.empty()) return absl::InvalidArgumentError("the list of losses is empty");
  RETURN_IF_ERROR(CheckStudent(batch));
  std::vector<at::Tensor> sums;
  for (int i = 0; i < losses.size(); ++i) {
    const v1::Loss& loss = losses[i];
    absl::StatusOr<at::Tensor> value = Evaluate(loss, i, batch);
    if (!value.ok()) {
      return Annotate(value.status(), absl::StrCat("losses[", i, "] ", v1::LossKind_Name(loss.kind())));
    }
    sums.push_back(*value * loss.weight());
  }
  return sums;
}

}  // namespace polystill::losses
