#include "student_worker/training_step.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "losses/feature_pairs.h"
#include "losses/weighted.h"
#include "models/outputs.h"
#include "runtime/counter_rng.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

// A word that keeps the draws of a training's forwards apart from those of weights and orders.
constexpr uint64_t kRowWord = NameWord("row of a step");

// Rows of records [first, last) of a list [rows, width], as a tensor; they stay where they are.
template <typename Number>
at::Tensor RowsAt(const Batch& batch, RowsOf rows, const std::vector<Number>& numbers, std::vector<int64_t> width,
                  int64_t first, int64_t last) {
  const int64_t begin = batch.CountRows(rows, 0, first);
  std::vector<int64_t> sizes = {batch.CountRows(rows, first, last)};
  sizes.insert(sizes.end(), width.begin(), width.end());
  return at::from_blob(const_cast<Number*>(numbers.data()) + begin * (width.empty() ? 1 : width[0]), sizes,
                       c10::CppTypeToScalarType<Number>::value);
}

// Integers of a label that begin at `begin`, on the model's device.
at::Tensor Integers(const std::vector<int32_t>& integers, int64_t begin, int64_t count, at::Device device) {
  const at::Tensor some = at::from_blob(const_cast<int32_t*>(integers.data()) + begin, {count}, at::kInt);
  return cuda::ToDevice(some.to(at::kLong), device);
}

// What a teacher said of records [first, last).
losses::TeacherLabels TeacherLabelsOf(const Batch& batch, const LabelKind& kind, const Labels& said, int64_t first,
                                      int64_t last, at::Device device) {
  losses::TeacherLabels labels;
  const int64_t begin = batch.CountRows(said.rows, 0, first), rows = batch.CountRows(said.rows, first, last);
  if (said.width > 0) {
    labels.numbers = cuda::ToDevice(RowsAt(batch, said.rows, said.numbers, {said.width}, first, last), device);
  }
  if (kind.codec.codec == v1::CODEC_TOP_K) {
    labels.ids = Integers(said.ids, begin * kind.codec.k, rows * kind.codec.k, device).view({rows, kind.codec.k});
  } else if (kind.codec.codec == v1::CODEC_CLASSES) {
    labels.ids = Integers(said.ids, begin, rows, device);
  } else if (kind.codec.codec == v1::CODEC_SAMPLED) {
    const int64_t place = said.offsets[begin], drawn = said.offsets[begin + rows] - place;
    labels.ids = Integers(said.ids, place, drawn, device);
    labels.counts = Integers(said.counts, place, drawn, device);
    for (int64_t row = begin; row <= begin + rows; ++row) labels.offsets.push_back(said.offsets[row] - place);
  }
  return labels;
}

// What records [first, last) are to learn, on the model's device.
losses::Batch LabelsOf(const v1::Job& job, const Batch& batch, int64_t first, int64_t last, at::Device device) {
  losses::Batch labels;
  labels.task = job.task();
  labels.record_ids.assign(batch.ids.begin() + first, batch.ids.begin() + last);
  for (int64_t record = first; record < last; ++record) {
    labels.rows_of_records.push_back(batch.CountRows(RowsOf::kJudged, record, record + 1));
  }
  std::vector<int64_t> width;  // of gold labels: one a row, or one a label of it
  if (job.task() == v1::TASK_MULTI_LABEL) width = {job.labels_size()};
  const int64_t in_all = batch.CountRows(RowsOf::kJudged) * (width.empty() ? 1 : width[0]);
  if (static_cast<int64_t>(batch.gold.size()) == in_all) {
    labels.gold = cuda::ToDevice(RowsAt(batch, RowsOf::kJudged, batch.gold, width, first, last), device);
  }
  for (const auto& [kind, said] : batch.labels) {
    labels.teachers[{kind.teacher, kind.codec, kind.output}] = TeacherLabelsOf(batch, kind, said, first, last, device);
  }
  return labels;
}

// Names of the student's features that a job's losses compare, each once.
std::vector<std::string> FeaturesOf(const v1::Job& job) {
  std::set<std::string> names;
  for (int i = 0; i < job.losses_size(); ++i) {
    for (const losses::FeaturePair& pair : losses::FeaturePairsOf(job.losses(i), i)) names.insert(pair.student);
  }
  return {names.begin(), names.end()};
}

// Matrix products in bfloat16, on this thread, as long as it lives.
class Autocast {
 public:
  Autocast(bool on, at::DeviceType device) : on_(on), device_(device) {
    if (!on_) return;
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (!on_) return;
    // It keeps the weights that it has converted until they change.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  const bool on_;
  const at::DeviceType device_;
};

}  // namespace

TrainingStep::TrainingStep(const v1::Job& job, const models::Model& model, const checkpoint::NamedTensors& projections,
                           std::map<std::string, losses::Head> heads, StepTotals totals, collectives::Reducer* reducer,
                           Apply apply)
    : job_(job),
      model_(model),
      heads_(std::move(heads)),
      features_(FeaturesOf(job)),
      projections_(projections.begin(), projections.end()),
      judges_logits_(std::any_of(job.losses().begin(), job.losses().end(),
                                 [](const v1::Loss& loss) { return RowsOfLoss(loss) == RowsOf::kJudged; })),
      totals_(std::move(totals)),
      reducer_(reducer),
      apply_(std::move(apply)) {}

absl::StatusOr<double> TrainingStep::Run(const Batch& batch) {
  try {
    absl::StatusOr<double> loss = RunOrThrow(batch);
    if (!loss.ok()) return Annotate(loss.status(), absl::StrCat("step ", batch.step));
    return loss;
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("step ", batch.step, ": ", error.what_without_backtrace()));
  }
}

losses::LogitShape TrainingStep::ShapeOf(const Batch& batch, int64_t first, int64_t last) const {
  losses::LogitShape shape;
  shape.rows = batch.CountRows(RowsOf::kJudged, first, last);
  const models::Head head = model_.head();
  shape.classes = head.bias.defined()
                      ? head.bias.size(0)
                      : models::LogitCount(job_.task(), job_.labels_size(), job_.tokenizer().vocab_size());
  shape.number_bytes = job_.dtype() == v1::Student::DTYPE_FLOAT64 ? 8 : 4;
  // In bfloat16 the head's product belongs to the forward.
  const bool by_head = job_.autocast() != v1::Student::AUTOCAST_BFLOAT16 && head.weight.defined() && judges_logits_;
  if (by_head && losses::IsChunked(shape)) shape.head_width = head.weight.size(1);
  return shape;
}

absl::Status TrainingStep::CheckMemory(const losses::LogitShape& shape, int64_t records) const {
  const int64_t needed = losses::LogitBytes(job_.losses(), shape) >> 20;
  if (job_.loss_memory_mb() == 0 || needed <= job_.loss_memory_mb()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("logits and losses of ", shape.rows, " rows of ", shape.classes, " classes would take ", needed,
                   " MiB, more than student.loss_memory_mb, ", job_.loss_memory_mb(), "; lower student.micro_batch (",
                   records, " records came at once), or let labels come by top_k, sampled or hidden_head"));
}

models::Outputs TrainingStep::Forward(const Batch& batch, int64_t first, int64_t last, bool head_input) const {
  std::vector<uint64_t> keys;
  for (int64_t row = first; row < last; ++row) {
    keys.push_back(CombineKey(job_.seed(), kRowWord, batch.step, batch.first_position + row));
  }
  const Autocast autocast(job_.autocast() == v1::Student::AUTOCAST_BFLOAT16, model_.device().type());
  models::Wanted wanted{{}, features_};
  wanted.head_input = head_input;
  if (!batch.positions.empty()) {
    wanted.positions.assign(batch.positions.begin() + first, batch.positions.begin() + last);
  }
  models::Outputs outputs =
      models::TrainingForward(model_, {batch.tokens.begin() + first, batch.tokens.begin() + last}, keys, wanted);
  const at::ScalarType type = models::ScalarTypeOf(job_.dtype());
  outputs.logits = outputs.logits.to(type);
  for (auto& [name, feature] : outputs.features) feature = feature.to(type);
  return outputs;
}

absl::StatusOr<double> TrainingStep::RunPiece(const Batch& batch, int64_t first, int64_t last,
                                              const Divisors& divisors) {
  const losses::LogitShape shape = ShapeOf(batch, first, last);
  RETURN_IF_ERROR(CheckMemory(shape, last - first));
  losses::Batch judged = LabelsOf(job_, batch, first, last, model_.device());   // labels
  models::Outputs outputs = Forward(batch, first, last, shape.head_width > 0);  // forward
  judged.logits = outputs.logits;
  if (shape.head_width > 0) judged.head = {model_.head().weight, model_.head().bias};
  judged.heads = heads_;
  judged.features = std::move(outputs.features);
  judged.projections = projections_;
  ASSIGN_OR_RETURN(const auto sums, losses::EvaluateLosses(job_.losses(), judged));  // losses
  // Where no loss judges the logits, what only they depend on gets a gradient of zeros.
  at::Tensor share = judges_logits_ ? at::zeros({}, judged.logits.options()) : judged.logits.sum() * 0;
  double mean = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    share = share + sums[i] / divisors.step[i];
    mean += sums[i].item<double>() / static_cast<double>(std::max<int64_t>(divisors.slice[i], 1));
  }
  phases_.End(Phases::kForward);
  const bool ends_step = last == static_cast<int64_t>(batch.ids.size());
  RETURN_IF_ERROR(ends_step ? reducer_->Backward(share) : reducer_->Accumulate(share));  // backward, reduce
  phases_.End(Phases::kBackward);
  return mean;
}

absl::StatusOr<double> TrainingStep::RunOrThrow(const Batch& batch) {
  phases_.Begin();
  const auto records = static_cast<int64_t>(batch.ids.size());
  const int64_t piece = job_.micro_batch() > 0 ? job_.micro_batch() : std::max<int64_t>(records, 1);
  RETURN_IF_ERROR(totals_.Begin(batch));
  Divisors divisors{CountLossRows(job_, batch), {}};
  phases_.End(Phases::kForward);
  ASSIGN_OR_RETURN(divisors.step, totals_.Rows());
  phases_.End(Phases::kBackward);  // a wait for the others
  double loss = 0;
  int64_t first = 0;
  do {  // an empty slice is one piece, so that every rank takes part in the reduction
    const int64_t last = std::min(first + piece, records);
    ASSIGN_OR_RETURN(const double mean, RunPiece(batch, first, last, divisors));
    loss += mean;
    first = last;
  } while (first < records);
  ASSIGN_OR_RETURN(const v1::Counted counted, totals_.Counted());
  RETURN_IF_ERROR(apply_(counted));  // step
  phases_.End(Phases::kUpdate);
  return loss;
}

}  // namespace polystill::student_worker
