#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/path.h"
#include "checkpoint/safetensors.h"
#include "polystill/v1/training.pb.h"

namespace polystill::checkpoint {

// Everything that training needs to go on after `step` applied steps.
struct CheckpointState {
  // Name of the job, e.g. "distilled".
  std::string job;
  int64_t step = 0;
  int64_t generation = 0;
  // Lower-case hex SHA-256; whoever resumes compares them with its own.
  std::string spec_digest;
  std::string plan_digest;
  // Parameters, in the model's order.
  NamedTensors model;
  // What is trained beside the model and is no part of it, if there is any.
  NamedTensors projections;
  // Moments and step of the optimiser.
  NamedTensors optimizer;
  // What all workers together have consumed.
  v1::Counted counted;
  // Unset without early stopping, as is `best`: the parameters of the best step so far, if there is one.
  std::optional<v1::EarlyStoppingState> early_stopping;
  NamedTensors best;
};

// All that a training trains: the model's parameters, then the projections. In this order the optimiser takes them, and
// the digest that ranks compare and the coordinator admits is taken.
NamedTensors TrainedOf(NamedTensors model, const NamedTensors& projections);

// SHA-256 of all that equal replicas share, lower-case hex: every tensor, step, counts, early stopping. Not of the time
// that was waited, which is each worker's own, nor of the generation.
std::string StateDigest(const CheckpointState& state);

// A checkpoint is a folder JOB/step-000000120-gen-3 (checkpoint/path.h) of
//
//   model.safetensors, optimizer.safetensors, projections.safetensors (with losses on features), best.safetensors (with
//   early stopping)
//   MANIFEST.yaml      written last: size and SHA-256 of them, the fields of CheckpointState (docs/formats.md)

// Writes the checkpoint of state.step into `folder`; it appears whole or not at all, and an older one of that step and
// generation is replaced. Returns the digest of its manifest, which vouches for everything in it. RESOURCE_EXHAUSTED on
// a full disk.
absl::StatusOr<std::string> SaveCheckpoint(const std::string& folder, const CheckpointState& state);

// Reads one checkpoint (`path` as CheckpointPath gives it) and verifies every digest first. NOT_FOUND (no manifest),
// DATA_LOSS (names the torn file), INVALID_ARGUMENT (another version of the format).
absl::StatusOr<CheckpointState> LoadCheckpoint(const std::string& path);

struct RefusedCheckpoint {
  std::string path;
  absl::Status reason;
};

struct LatestCheckpointResult {
  // The intact checkpoint of the highest generation and step, if there is one.
  std::optional<CheckpointState> state;
  std::string path;
  // Newer ones that were passed over.
  std::vector<RefusedCheckpoint> refused;
};

// The newest intact checkpoint in `folder`; a folder that is not there holds none.
LatestCheckpointResult LatestCheckpoint(const std::string& folder);

}  // namespace polystill::checkpoint
