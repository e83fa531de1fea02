#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/corpus.pb.h"
#include "student_worker/job_link.h"
#include "student_worker/worker_context.h"

namespace polystill::student_worker {

// For tests: a job small enough to run in a moment.

inline constexpr int kTinyVocabulary = 64;

// Writes folder/corpus.parquet: records "r0", "r1", ... in turn of de, fr and ja; classes "low" and "high" by the half
// of the vocabulary that most of their ids are from.
void WriteTinyCorpus(const std::string& folder, int records);

// Its records, with labels and the ids of the text side.
v1::Selection TinySelection(const std::string& folder);

// A training by the task loss over it, as one rank of one; packages and checkpoints go into `folder`.
v1::WorkerOrder::Assignment TinyTraining(const std::string& folder, int64_t steps);

// That training goes on from this checkpoint.
void GoOnFrom(const v1::WorkerMessage::Checkpointed& checkpoint, v1::WorkerOrder::Assignment* assignment);

// Carries out an assignment of KIND_TRAIN as the only one of its job, by a worker that has done nothing before. ABORTED
// when the ranks have left together.
absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment, WorkerContext context);

// A coordinator that only knows the index of TinySelection, and hands progress to `on_progress`.
class TinyLink : public JobLink {
 public:
  explicit TinyLink(const std::string& folder) : folder_(folder) {}

  void Report(const v1::WorkerMessage::Progress& progress) override {
    if (on_progress) on_progress(progress);
  }
  void TellCheckpoint(const v1::WorkerMessage::Checkpointed& checkpoint) override { checkpoints.push_back(checkpoint); }
  absl::StatusOr<v1::CorpusIndex> GetIndex(const std::string& digest) override;

  // Those of one write at a time: read them when the training has ended.
  std::vector<v1::WorkerMessage::Checkpointed> checkpoints;
  std::function<void(const v1::WorkerMessage::Progress&)> on_progress;

 private:
  const std::string folder_;
};

}  // namespace polystill::student_worker
