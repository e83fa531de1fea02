#pragma once

#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/job_link.h"
#include "student_worker/metrics.h"
#include "student_worker/record_trace.h"

namespace polystill::student_worker {

// What the jobs of a worker share.
struct WorkerContext {
  // Name or address of this machine for the other workers.
  std::string host;
  JobLink* link = nullptr;
  // Null: not wanted.
  RecordTrace* trace = nullptr;
  std::stop_token stop;
  // Null: not wanted.
  WorkerMetrics* metrics = nullptr;
  // Which of this machine's GPUs to work on, where the job is on GPUs.
  int gpu = 0;
  // The run's name.
  std::string run = {};
};

// Carries out an assignment of KIND_TRAIN: trains the job's model together with the other ranks, writes checkpoints
// and, as rank 0, the package. Goes on from assignment.checkpoint if there is one. CANCELLED when stopped (some rank
// was): then at a step boundary, after a last checkpoint, unless labels or peers stay away. ABORTED: a peer is gone;
// UNAVAILABLE: no teacher answers; else the status names the file, record or field at fault.
absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment,
                                              const WorkerContext& context);

}  // namespace polystill::student_worker
