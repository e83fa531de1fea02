#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"
#include "models/model.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/optimizer.h"

namespace polystill::student_worker {

// The state of a training after its last step, as a checkpoint holds it: views of the tensors, not copies. The
// generation, what was counted, and early stopping, is for the caller to add.
checkpoint::CheckpointState StateOf(const v1::Job& job, const models::Model& model,
                                    const checkpoint::NamedTensors& projections, const Optimizer& optimizer);

// Puts model, projections and optimiser where they were then. FAILED_PRECONDITION when the state is of another job: its
// specification (but for threads, prefetch and how checkpoints are written) or its plan differs; INVALID_ARGUMENT:
// tensors that do not fit.
absl::Status RestoreState(const checkpoint::CheckpointState& state, const v1::Job& job, models::Model* model,
                          const checkpoint::NamedTensors& projections, Optimizer* optimizer);

}  // namespace polystill::student_worker
