#include "student_worker/training_step.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "losses/feature_pairs.h"
#include "losses/weighted.h"
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
    labels.teachers[{kind.teacher, kind.codec, kind.output}] =
        cuda::ToDevice(RowsAt(batch, said.rows, said.numbers, {said.width}, first, last), device);
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
                           collectives::Group* group, collectives::Reducer* reducer, Optimizer* optimizer)
    : job_(job),
      model_(model),
      features_(FeaturesOf(job)),
      projections_(projections.begin(), projections.end()),
      judges_logits_(std::any_of(job.losses().begin(), job.losses().end(),
                                 [](const v1::Loss& loss) { return RowsOfLoss(loss) == RowsOf::kJudged; })),
      group_(group),
      reducer_(reducer),
      optimizer_(optimizer) {}

absl::StatusOr<double> TrainingStep::Run(const Batch& batch) {
  try {
    absl::StatusOr<double> loss = RunOrThrow(batch);
    if (!loss.ok()) return Annotate(loss.status(), absl::StrCat("step ", batch.step));
    return loss;
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("step ", batch.step, ": ", error.what_without_backtrace()));
  }
}

models::Outputs TrainingStep::Forward(const Batch& batch, int64_t first, int64_t last) const {
  std::vector<uint64_t> keys;
  for (int64_t row = first; row < last; ++row) {
    keys.push_back(CombineKey(job_.seed(), kRowWord, batch.step, batch.first_position + row));
  }
  const Autocast autocast(job_.autocast() == v1::Student::AUTOCAST_BFLOAT16, model_.device().type());
  models::Wanted wanted{{}, features_};
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
  losses::Batch judged = LabelsOf(job_, batch, first, last, model_.device());  // labels
  models::Outputs outputs = Forward(batch, first, last);                       // forward
  judged.logits = outputs.logits;
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
  Divisors divisors{CountLossRows(job_, batch), {}};
  ASSIGN_OR_RETURN(divisors.step, CountLossRowsOfStep(job_, divisors.slice, group_));
  double loss = 0;
  int64_t first = 0;
  do {  // an empty slice is one piece, so that every rank takes part in the reduction
    const int64_t last = std::min(first + piece, records);
    ASSIGN_OR_RETURN(const double mean, RunPiece(batch, first, last, divisors));
    loss += mean;
    first = last;
  } while (first < records);
  RETURN_IF_ERROR(optimizer_->Step());  // step
  phases_.End(Phases::kUpdate);
  return loss;
}

}  // namespace polystill::student_worker
