#pragma once

#include <chrono>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::student_worker {

struct WorkerOptions {
  // host:port.
  std::string coordinator;
  // Name or address of this machine for the other workers. Empty: 127.0.0.1 when the coordinator is on loopback, else
  // the machine's name.
  std::string host;
  // Which of this machine's GPUs to work on when the job is on GPUs.
  int gpu = 0;
  // host:port at which Prometheus reads, off loopback with `insecure` only; none when empty.
  std::string metrics;
  bool insecure = false;
  // For the coordinator to come back.
  std::chrono::milliseconds coordinator_patience{600'000};
  // File for the record trace; empty: none.
  std::string trace_records;
};

// Works for a run: joins it, carries out assignment after assignment, and returns when told to stop, with how the run
// has ended, or when `stop` is requested by others, with STATE_UNSPECIFIED. A job that fails is reported, and the
// worker waits for further orders; the status is then that of the last one that failed. When a peer is gone, or the
// coordinator says so, the generation is left, and what is held goes into the next one. UNAVAILABLE when the
// coordinator is lost for good.
absl::StatusOr<v1::RunStatus::State> Work(const WorkerOptions& options, std::stop_source stop);

}  // namespace polystill::student_worker
