#pragma once

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/worker_context.h"

namespace polystill::student_worker {

// Carries out an assignment of KIND_EVALUATE: every model's probabilities for every record of the job's selection, to
// job.predictions. CANCELLED when stopped; else the status names the file, package, record or field at fault.
absl::StatusOr<v1::WorkerMessage::Done> Evaluate(const v1::WorkerOrder::Assignment& assignment,
                                                 const WorkerContext& context);

}  // namespace polystill::student_worker
