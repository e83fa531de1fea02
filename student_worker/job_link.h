#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::student_worker {

// What a job needs of the coordinator while it runs. Thread-safe; none of it waits for the coordinator but GetIndex.
class JobLink {
 public:
  virtual ~JobLink() = default;

  // Tells how far the job is: the latest report is sent, at most 5 a second. Cheap enough for every step.
  virtual void Report(const v1::WorkerMessage::Progress& progress) = 0;

  // Tells that a checkpoint is whole and on the disk.
  virtual void TellCheckpoint(const v1::WorkerMessage::Checkpointed& checkpoint) = 0;

  // The index of an assignment. NOT_FOUND, DATA_LOSS (it is not the one of that digest), CANCELLED (stopped meanwhile),
  // ABORTED (the generation is to be left).
  virtual absl::StatusOr<v1::CorpusIndex> GetIndex(const std::string& digest) = 0;
};

}  // namespace polystill::student_worker
