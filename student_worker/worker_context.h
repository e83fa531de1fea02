#pragma once

#include <stop_token>
#include <string>

#include "student_worker/job_link.h"
#include "student_worker/membership.h"
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
  // What this worker is and holds.
  Membership* membership = nullptr;
};

}  // namespace polystill::student_worker
