#include "student_worker/training_step.h"

#include <ATen/ATen.h>

#include "losses/weighted.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

// The batch's numbers as tensors; they stay where they are.
losses::Batch LabelsOf(const Batch& batch, int64_t classes) {
  const auto rows = static_cast<int64_t>(batch.ids.size());
  losses::Batch labels;
  labels.record_ids = batch.ids;
  labels.gold = at::from_blob(const_cast<int64_t*>(batch.gold.data()), {rows}, at::kLong);
  for (const auto& [kind, logits] : batch.labels) {
    labels.teachers[{kind.teacher, kind.codec}] =
        at::from_blob(const_cast<float*>(logits.data()), {rows, classes}, at::kFloat);
  }
  return labels;
}

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

absl::StatusOr<double> TrainingStep::RunOrThrow(const Batch& batch) {
  phases_.Begin();
  losses::Batch judged = LabelsOf(batch, job_.labels_size());                        // labels
  judged.logits = models::FixedShapeForward(model_, batch.tokens);                   // forward
  ASSIGN_OR_RETURN(const auto loss, losses::EvaluateLosses(job_.losses(), judged));  // losses
  phases_.End(Phases::kForward);
  RETURN_IF_ERROR(reducer_->Backward(loss / job_.plan().batch_size()));  // backward, reduce
  phases_.End(Phases::kBackward);
  RETURN_IF_ERROR(optimizer_->Step());  // step
  phases_.End(Phases::kUpdate);
  return batch.ids.empty() ? 0.0 : loss.item<double>() / static_cast<double>(batch.ids.size());
}

}  // namespace polystill::student_worker
