#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/run_inputs.h"
#include "coordinator/state_store.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What an earlier coordinator of a run left behind; empty for a new run.
struct Resumption {
  // Finished stages that need not be done again -> digest of what they made: of a job's weights, of the tokeniser's
  // file.
  std::map<std::string, std::string> finished;
  // Job -> its admitted checkpoints, by step. The last one is intact.
  std::map<std::string, std::vector<StateStore::Checkpoint>> checkpoints;
  // Job -> its plan.
  std::map<std::string, v1::PlanSegment> segments;
  // Key of the run file -> digest of what it named when the run began (RunInput).
  std::map<std::string, std::string> inputs;
  // Stages as they were last recorded.
  std::map<std::string, v1::RunStatus::Stage> stages;
};

// How what lies in the run's folder is looked at; each gives the reason when it is not whole.
struct Verifiers {
  // What a checkpoint's folder holds, by its own account: step, generation and the digest of what was trained.
  std::function<absl::StatusOr<StateStore::Checkpoint>(const std::string& path)> checkpoint;
  // Whether a package is whole, and its weights have this digest.
  std::function<absl::Status(const std::string& folder, const std::string& weights_digest)> package;
};

// What to go on from. Whatever is passed over is logged with the reason: a finished job whose package is damaged is not
// finished any more, a checkpoint that is torn, or not the one that was admitted, is struck from the store, and folders
// of checkpoints that were never admitted are deleted. The errors of StateStore.
absl::StatusOr<Resumption> FindResumption(const v1::RunSpec& spec, const Verifiers& verifiers, StateStore* store);

// Deletes what lies in a job's folder of checkpoints and was never admitted: leftovers of processes that died, and what
// was written by workers that the coordinator no longer heard. What is of `last_generation` stays: its workers may be
// at work, and tell of it only now.
void DeleteUnadmitted(const std::string& folder, const std::vector<StateStore::Checkpoint>& admitted,
                      int64_t last_generation = std::numeric_limits<int64_t>::max());

// Why the run cannot go on with this plan of a job; empty when it is the plan that the job began with, or it had none.
std::string PlanChange(const Resumption& resumption, const std::string& job, const v1::PlanSegment& now);

// Why the run cannot go on with this input; empty when it is as it was, is new, or every job that reads it is finished.
std::string InputChange(const Resumption& resumption, const RunInput& now);

}  // namespace polystill::coordinator
