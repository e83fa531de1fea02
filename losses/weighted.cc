#include "losses/weighted.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "losses/feature_losses.h"
#include "losses/feature_pairs.h"
#include "losses/losses.h"
#include "losses/packed_losses.h"
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

// The first row that holds a number that is not finite, if any: looked for in chunks, as the answer for all numbers at
// once would take more memory than they do.
std::optional<int64_t> FirstRowNotFinite(const at::Tensor& numbers) {
  const int64_t rows = numbers.size(0), most = RowsOfChunk(std::max<int64_t>(1, numbers.size(1)));
  for (int64_t first = 0; first < rows; first += most) {
    const at::Tensor some = numbers.detach().narrow(0, first, std::min(most, rows - first));
    if (const auto row = FirstBadRow(at::isfinite(some).logical_not())) return first + *row;
  }
  return std::nullopt;
}

absl::Status CheckStudent(const Batch& batch) {
  if (!batch.logits.defined() || batch.logits.dim() != 2 || !batch.logits.is_floating_point()) {
    return absl::InvalidArgumentError("the student's logits must be floating [rows, classes]");
  }
  if (const auto row = FirstRowNotFinite(batch.logits)) {
    return absl::FailedPreconditionError(
        absl::StrCat(RecordOf(batch, *row), ": the student's ", batch.head.weight.defined() ? "states" : "logits",
                     " are not finite: training has diverged; lower optimizer.lr or set optimizer.clip_norm"));
  }
  return absl::OkStatus();
}

LogitRows StudentLogits(const Batch& batch) { return {batch.logits, batch.head}; }

absl::Status CheckGold(const Batch& batch) {
  if (!batch.gold.defined()) return absl::InvalidArgumentError("needs gold labels, and the batch carries none");
  const int64_t rows = batch.logits.size(0), logits = StudentLogits(batch).classes();
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
const TeacherLabels* FindTeacher(const v1::Loss& loss, const std::string& output, const Batch& batch) {
  const soft_labels::CodecSettings settings = soft_labels::SettingsOf(loss);
  const TeacherLabels* found = nullptr;
  for (const auto& [key, labels] : batch.teachers) {
    const auto& [teacher, codec, name] = key;
    if (codec != settings || name != output || (!loss.teacher().empty() && teacher != loss.teacher())) continue;
    if (found != nullptr) return nullptr;  // an unnamed teacher must be the only one
    found = &labels;
  }
  return found;
}

std::string Sizes(const at::Tensor& tensor) {
  return tensor.defined() ? c10::str(tensor.sizes(), " ", tensor.scalar_type()) : "nothing";
}

// Whether `tensor` is [rows, width], or [rows] when width is 0; floating or int64.
bool Is(const at::Tensor& tensor, int64_t rows, int64_t width, bool floating) {
  if (!tensor.defined()) return false;
  const std::vector<int64_t> shape = width > 0 ? std::vector<int64_t>{rows, width} : std::vector<int64_t>{rows};
  return tensor.sizes() == at::IntArrayRef(shape) &&
         (floating ? tensor.is_floating_point() : tensor.scalar_type() == at::kLong);
}

// Whether labels have the shapes of their codec, for the student's rows and classes.
bool FitsCodec(const v1::Loss& loss, const TeacherLabels& labels, const Batch& batch, int64_t width_of_head) {
  const int64_t rows = batch.logits.size(0), classes = StudentLogits(batch).classes();
  switch (loss.codec()) {
    case v1::CODEC_CLASSES:
      return Is(labels.ids, rows, 0, false);
    case v1::CODEC_TOP_K:
      return loss.k() <= classes && Is(labels.ids, rows, loss.k(), false) &&
             Is(labels.numbers, rows, loss.k() + 1, true);
    case v1::CODEC_SAMPLED: {
      const auto& offsets = labels.offsets;
      if (static_cast<int64_t>(offsets.size()) != rows + 1 || offsets[0] != 0) return false;
      return Is(labels.numbers, rows, 1, true) && std::is_sorted(offsets.begin(), offsets.end()) &&
             Is(labels.ids, offsets.back(), 0, false) && Is(labels.counts, offsets.back(), 0, false);
    }
    case v1::CODEC_HIDDEN_HEAD:
      return Is(labels.numbers, rows, width_of_head, true);
    default:
      return Is(labels.numbers, rows, classes, true);
  }
}

// In the student's type; undefined when there is none. An unnamed teacher must be the only one.
Head TeacherHead(const v1::Loss& loss, const Batch& batch) {
  const bool only = loss.teacher().empty() && batch.heads.size() == 1;
  const auto found = only ? batch.heads.begin() : batch.heads.find(loss.teacher());
  if (found == batch.heads.end()) return {};
  return {found->second.weight.to(batch.logits.options()), found->second.bias.to(batch.logits.options())};
}

// The labels that a loss on logits learns from, checked.
absl::StatusOr<const TeacherLabels*> LabelsOfLogits(const v1::Loss& loss, const Batch& batch, const Head& head) {
  const TeacherLabels* labels = FindTeacher(loss, models::kLogits, batch);
  if (labels == nullptr || (!labels->numbers.defined() && !labels->ids.defined())) {
    return absl::InvalidArgumentError(absl::StrCat("needs the labels of teacher '", loss.teacher(), "' by codec ",
                                                   v1::Codec_Name(loss.codec()), ", and the batch carries none"));
  }
  const int64_t classes = StudentLogits(batch).classes();
  if (!FitsCodec(loss, *labels, batch, head.weight.defined() ? head.weight.size(1) : 0)) {
    return absl::InvalidArgumentError(absl::StrCat("teacher '", loss.teacher(), "' gave ", Sizes(labels->numbers),
                                                   labels->ids.defined() ? ", ids " + Sizes(labels->ids) : "",
                                                   ", the student has [", batch.logits.size(0), ", ", classes, "]"));
  }
  const at::Tensor& numbers = labels->numbers;
  // The log of the rest of all ids is minus infinity; the losses do not read it.
  const bool whole = loss.codec() == v1::CODEC_TOP_K && loss.k() == classes;
  const at::Tensor read = whole ? numbers.narrow(1, 0, classes) : numbers;
  if (const auto row = read.defined() ? FirstRowNotFinite(read) : std::nullopt) {
    return absl::InvalidArgumentError(
        absl::StrCat(RecordOf(batch, *row), ": teacher '", loss.teacher(), "' gave a logit that is not finite"));
  }
  const at::Tensor& ids = labels->ids;
  if (ids.defined() && ids.numel() > 0 && (ids.min().item<int64_t>() < 0 || ids.max().item<int64_t>() >= classes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("teacher '", loss.teacher(), "' gave an id that is not one of ", classes, " classes"));
  }
  return labels;
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
  const TeacherLabels* teacher = FindTeacher(loss, pair.teacher, batch);
  if (student == batch.features.end() || projection == batch.projections.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs the student's '", pair.student, "' and '", pair.projection, "', and the batch lacks one"));
  }
  if (teacher == nullptr || !teacher->numbers.defined()) {
    return absl::InvalidArgumentError(absl::StrCat("needs '", pair.teacher, "' of teacher '", loss.teacher(),
                                                   "' by codec ", v1::Codec_Name(loss.codec()),
                                                   ", and the batch carries none"));
  }
  const Features features{student->second, projection->second, teacher->numbers.to(student->second.options())};
  const at::IntArrayRef sizes = features.student.sizes();
  if (sizes.size() != 2 || features.teacher.dim() != 2 || features.teacher.size(0) != sizes[0] ||
      features.projection.sizes() != at::IntArrayRef({features.teacher.size(1), sizes[1]})) {
    return absl::InvalidArgumentError(absl::StrCat("'", pair.teacher, "' of teacher '", loss.teacher(), "' is ",
                                                   c10::str(features.teacher.sizes()), ", '", pair.student,
                                                   "' of the student ", c10::str(sizes), ", their projection ",
                                                   c10::str(features.projection.sizes())));
  }
  if (const auto row = FirstRowNotFinite(features.teacher)) {
    return absl::InvalidArgumentError(absl::StrCat("row ", *row, " of '", pair.teacher, "' of teacher '",
                                                   loss.teacher(), "' holds a number that is not finite"));
  }
  if (const auto row = FirstRowNotFinite(features.student)) {
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

// A loss on rows of the student's logits and the teacher's.
using OfLogits = std::function<at::Tensor(const at::Tensor& student, const at::Tensor& teacher)>;

absl::StatusOr<OfLogits> SoftmaxLoss(const v1::Loss& loss) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_SOFT_LABEL:
      RETURN_IF_ERROR(CheckTemperature(loss));
      return [t = loss.temperature()](const at::Tensor& s, const at::Tensor& z) { return SoftLabel(s, z, t); };
    case v1::LOSS_KIND_HARD_LABEL:
      return HardLabel;
    case v1::LOSS_KIND_LOGIT_MSE:
      return LogitMse;
    case v1::LOSS_KIND_BINARY:
      return absl::InvalidArgumentError("goes with tasks binary and multi_label; this task's is soft_label");
    default:
      return absl::InvalidArgumentError("is not a kind of loss that this build knows");
  }
}

absl::StatusOr<OfLogits> SigmoidLoss(const v1::Loss& loss) {
  switch (loss.kind()) {
    case v1::LOSS_KIND_BINARY:
      RETURN_IF_ERROR(CheckTemperature(loss));
      return [t = loss.temperature()](const at::Tensor& s, const at::Tensor& z) { return Binary(s, z, t); };
    case v1::LOSS_KIND_HARD_LABEL:
      return BinaryHardLabel;
    case v1::LOSS_KIND_LOGIT_MSE:
      return BinaryLogitMse;
    case v1::LOSS_KIND_SOFT_LABEL:
      return absl::InvalidArgumentError("goes with tasks of one class of several; this task's is binary");
    default:
      return absl::InvalidArgumentError("is not a kind of loss that this build knows");
  }
}

// The rows [first, first + count) of a top_k label.
at::Tensor GhostRows(const at::Tensor& student, const TeacherLabels& labels, const v1::Loss& loss, int64_t first,
                     int64_t count) {
  const at::Tensor numbers = labels.numbers.narrow(0, first, count).to(student.options());
  const at::Tensor ids = labels.ids.narrow(0, first, count).to(student.device());
  return GhostTopK(student, ids, numbers.narrow(1, 0, loss.k()), numbers.select(1, loss.k()), loss.temperature());
}

// The same of a sampled one.
at::Tensor SampledRows(const at::Tensor& student, const TeacherLabels& labels, const v1::Loss& loss, int64_t first,
                       int64_t count) {
  const int64_t begin = labels.offsets[first], drawn = labels.offsets[first + count] - begin;
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < count; ++row) {
    rows.insert(rows.end(), labels.offsets[first + row + 1] - labels.offsets[first + row], row);
  }
  return SampledSoftLabel(student, at::tensor(rows, at::kLong).to(student.device()),
                          labels.ids.narrow(0, begin, drawn).to(student.device()),
                          labels.counts.narrow(0, begin, drawn).to(student.options()),
                          labels.numbers.narrow(0, first, count).to(student.options()), loss.draws_per_token(),
                          loss.temperature());
}

absl::StatusOr<RowLoss> GoldLoss(const Batch& batch) {
  RETURN_IF_ERROR(CheckGold(batch));
  const bool sigmoids = models::HasSigmoids(batch.task);
  return [&batch, sigmoids](const at::Tensor& logits, int64_t first, int64_t count) {
    const at::Tensor gold = batch.gold.narrow(0, first, count);
    return sigmoids ? BinaryCrossEntropy(logits, gold.view_as(logits)) : CrossEntropy(logits, gold);
  };
}

// A loss on logits, whatever the codec; `batch` outlives it.
absl::StatusOr<RowLoss> RowLossOf(const v1::Loss& loss, const Batch& batch) {
  if (loss.kind() == v1::LOSS_KIND_TASK) return GoldLoss(batch);
  const bool sigmoids = models::HasSigmoids(batch.task);
  ASSIGN_OR_RETURN(const OfLogits of_logits, sigmoids ? SigmoidLoss(loss) : SoftmaxLoss(loss));
  RETURN_IF_ERROR(soft_labels::CheckServes(loss));
  if (sigmoids && !soft_labels::IsDense(loss.codec())) {
    return absl::InvalidArgumentError("has sigmoids, which dense codecs alone carry");
  }
  const Head head = TeacherHead(loss, batch);
  ASSIGN_OR_RETURN(const TeacherLabels* const labels, LabelsOfLogits(loss, batch, head));
  switch (loss.codec()) {
    case v1::CODEC_CLASSES:
      return [labels](const at::Tensor& student, int64_t first, int64_t count) {
        return CrossEntropy(student, labels->ids.narrow(0, first, count).to(student.device()));
      };
    case v1::CODEC_TOP_K:
      return [labels, loss](const at::Tensor& student, int64_t first, int64_t count) {
        return GhostRows(student, *labels, loss, first, count);
      };
    case v1::CODEC_SAMPLED:
      return [labels, loss](const at::Tensor& student, int64_t first, int64_t count) {
        return SampledRows(student, *labels, loss, first, count);
      };
    default: {
      const bool has_head = loss.codec() == v1::CODEC_HIDDEN_HEAD;
      return [labels, of_logits, head = has_head ? head : Head()](const at::Tensor& student, int64_t first,
                                                                  int64_t count) {
        const LogitRows teacher{labels->numbers.narrow(0, first, count).to(student.options()), head};
        return of_logits(student, teacher.Chunk(0, count).detach());
      };
    }
  }
}

absl::StatusOr<at::Tensor> Evaluate(const v1::Loss& loss, int place, const Batch& batch) {
  if (loss.kind() == v1::LOSS_KIND_EMBEDDING || loss.kind() == v1::LOSS_KIND_HIDDEN) {
    return EvaluateFeatures(loss, FeaturePairsOf(loss, place), batch);
  }
  ASSIGN_OR_RETURN(const RowLoss of_rows, RowLossOf(loss, batch));
  return SumOverRows(StudentLogits(batch), of_rows);
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
