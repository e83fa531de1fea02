#include "student_worker/training_state.h"

#include <string>

#include "runtime/deterministic_bytes.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "student_worker/projections.h"

namespace polystill::student_worker {
namespace {

std::string MessageDigest(const google::protobuf::Message& message) { return Sha256Hex(DeterministicBytes(message)); }

// Of what a checkpoint's training must share with the one that goes on from it.
std::string ResumableDigest(v1::Job job) {
  job.clear_threads();
  job.clear_prefetch();
  job.clear_checkpoint_every();
  job.clear_keep_checkpoints();
  return MessageDigest(job);
}

}  // namespace

checkpoint::CheckpointState StateOf(const v1::Job& job, const models::Model& model,
                                    const checkpoint::NamedTensors& projections, const Optimizer& optimizer) {
  checkpoint::CheckpointState state;
  state.job = job.name();
  state.step = optimizer.step();
  state.spec_digest = ResumableDigest(job);
  state.plan_digest = MessageDigest(job.plan());
  state.model = model.NamedParameters();
  state.projections = projections;
  state.optimizer = optimizer.State();
  return state;
}

absl::Status RestoreState(const checkpoint::CheckpointState& state, const v1::Job& job, models::Model* model,
                          const checkpoint::NamedTensors& projections, Optimizer* optimizer) {
  if (state.plan_digest != MessageDigest(job.plan()) || state.spec_digest != ResumableDigest(job)) {
    return absl::FailedPreconditionError("was written by a job with another specification or plan");
  }
  RETURN_IF_ERROR(models::SetParameters(state.model, model));
  RETURN_IF_ERROR(RestoreProjections(state.projections, projections));
  return optimizer->Restore(state.step, state.optimizer);
}

}  // namespace polystill::student_worker
