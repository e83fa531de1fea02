#include "student_worker/training_step.h"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <algorithm>
#include <vector>

#include "losses/weighted.h"
#include "runtime/counter_rng.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

// A word that keeps the draws of a training's forwards apart from those of weights and orders.
constexpr uint64_t kRowWord = NameWord("row of a step");

// Numbers of records [first, last) as tensors; they stay where they are.
losses::Batch LabelsOf(const Batch& batch, int64_t first, int64_t last, int64_t classes) {
  losses::Batch labels;
  labels.record_ids.assign(batch.ids.begin() + first, batch.ids.begin() + last);
  labels.gold = at::from_blob(const_cast<int64_t*>(batch.gold.data()) + first, {last - first}, at::kLong);
  for (const auto& [kind, logits] : batch.labels) {
    labels.teachers[{kind.teacher, kind.codec}] =
        at::from_blob(const_cast<float*>(logits.data()) + first * classes, {last - first, classes}, at::kFloat);
  }
  return labels;
}

// Matrix products in bfloat16, on this thread, as long as it lives.
class Autocast {
 public:
  explicit Autocast(bool on) : on_(on) {
    if (!on_) return;
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::increment_nesting();
  }
  ~Autocast() {
    if (!on_) return;
    // It keeps the weights that it has converted until they change.
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  const bool on_;
};

}  // namespace

TrainingStep::TrainingStep(const v1::Job& job, const models::Model& model, collectives::Reducer* reducer,
                           Optimizer* optimizer)
    : job_(job), model_(model), reducer_(reducer), optimizer_(optimizer) {}

absl::StatusOr<double> TrainingStep::Run(const Batch& batch) {
  try {
    absl::StatusOr<double> loss = RunOrThrow(batch);
    if (!loss.ok()) return Annotate(loss.status(), absl::StrCat("step ", batch.step));
    return loss;
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("step ", batch.step, ": ", error.what_without_backtrace()));
  }
}

at::Tensor TrainingStep::Forward(const Batch& batch, int64_t first, int64_t last) const {
  std::vector<uint64_t> keys;
  for (int64_t row = first; row < last; ++row) {
    keys.push_back(CombineKey(job_.seed(), kRowWord, batch.step, batch.first_position + row));
  }
  const Autocast autocast(job_.autocast() == v1::Student::AUTOCAST_BFLOAT16);
  return models::TrainingForward(model_, {batch.tokens.begin() + first, batch.tokens.begin() + last}, keys)
      .logits.to(models::ScalarTypeOf(job_.dtype()));
}

absl::StatusOr<double> TrainingStep::RunPiece(const Batch& batch, int64_t first, int64_t last, bool ends_step) {
  losses::Batch judged = LabelsOf(batch, first, last, job_.labels_size());           // labels
  judged.logits = Forward(batch, first, last);                                       // forward
  ASSIGN_OR_RETURN(const auto loss, losses::EvaluateLosses(job_.losses(), judged));  // losses
  phases_.End(Phases::kForward);
  const at::Tensor share = loss / job_.plan().batch_size();
  RETURN_IF_ERROR(ends_step ? reducer_->Backward(share) : reducer_->Accumulate(share));  // backward, reduce
  phases_.End(Phases::kBackward);
  return loss.item<double>();
}

absl::StatusOr<double> TrainingStep::RunOrThrow(const Batch& batch) {
  phases_.Begin();
  const auto records = static_cast<int64_t>(batch.ids.size());
  const int64_t piece = job_.micro_batch() > 0 ? job_.micro_batch() : std::max<int64_t>(records, 1);
  double loss = 0;
  int64_t first = 0;
  do {  // an empty slice is one piece, so that every rank takes part in the reduction
    const int64_t last = std::min(first + piece, records);
    ASSIGN_OR_RETURN(const double sum, RunPiece(batch, first, last, last == records));
    loss += sum;
    first = last;
  } while (first < records);
  RETURN_IF_ERROR(optimizer_->Step());  // step
  phases_.End(Phases::kUpdate);
  return records == 0 ? 0.0 : loss / static_cast<double>(records);
}

}  // namespace polystill::student_worker
