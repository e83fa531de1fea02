#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "checkpoint/async_writer.h"
#include "collectives/group.h"
#include "collectives/reducer.h"
#include "corpus/plan.h"
#include "corpus/tokenizer.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/data_loader.h"
#include "student_worker/held_out.h"
#include "student_worker/phases.h"
#include "student_worker/replica.h"
#include "student_worker/roll_call.h"
#include "student_worker/teachers.h"
#include "student_worker/training_step.h"
#include "student_worker/worker_context.h"

namespace polystill::student_worker {

// What a worker keeps of a training job from one generation to the next.
struct Training {
  v1::Job job;
  std::string tokenizer_file;                          // empty with token ids,
  std::shared_ptr<const corpus::Tokenizer> tokenizer;  // where this is null
  at::Device device = at::kCPU;
  models::ModelShape shape;
  std::unique_ptr<Teachers> teachers;
  std::shared_ptr<const v1::CorpusIndex> index;
  std::shared_ptr<const corpus::Plan> plan;
  // Gives the replica's state before the first step.
  std::function<absl::StatusOr<std::unique_ptr<Replica>>()> start;
  std::unique_ptr<Replica> replica;
  // As it was told last.
  v1::WorkerMessage::Progress progress;
  std::unique_ptr<checkpoint::AsyncWriter> writer;  // last: it writes what is above
};

// One generation of a training on this worker: its group, its part of the records, and the steps that it takes
// together with the other ranks. Not thread-safe.
class Generation {
 public:
  // What is referred to outlives this.
  Generation(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context, Training* training);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Meets the other ranks and agrees with them on a state. ABORTED: the generation is to be left (an order, or a peer
  // is gone); errors of AgreeOnState.
  absl::Status Form();

  // Trains until the job ends, or all ranks leave together after a step: false. ABORTED: as of Form; CANCELLED: some
  // rank was stopped: then at a step boundary, after a last checkpoint, unless labels or peers stay away. Else the
  // status names the file, record or field at fault.
  absl::StatusOr<bool> Work();

  // Writes to the log where the time went. After Work has returned OK.
  void TellCosts() const;

 private:
  absl::Status Join();
  absl::Status LoadData();
  absl::Status Step();
  absl::Status Apply(const v1::Counted& counted);
  absl::Status MeasureIfDue();
  // False: all ranks leave now.
  absl::StatusOr<bool> AfterStep();
  // A roll call; with the digest of the weights where they are to be compared.
  absl::StatusOr<RollCall::Answer> CallRoll(bool compare);
  absl::Status BeginCheckpoint(double waited);
  void NoteWaiting();
  void TellState();
  void NoteProgress(const Batch& batch, double loss);
  bool writes_files() const { return assignment_.rank() == 0; }

  using Clock = std::chrono::steady_clock;

  const v1::WorkerOrder::Assignment& assignment_;
  const v1::Job& job_;
  const WorkerContext& context_;
  Training& training_;
  Replica& replica_;
  v1::WorkerMessage::Progress& progress_;

  std::unique_ptr<collectives::Group> group_;
  std::unique_ptr<collectives::Reducer> reducer_;
  std::unique_ptr<TrainingStep> training_step_;
  std::unique_ptr<DataLoader> loader_;
  std::unique_ptr<RollCall> roll_call_;
  std::unique_ptr<HeldOut> held_out_;  // null without early stopping

  // Steps that had been applied when it began.
  int64_t first_step_ = 0;
  // Of the last roll call.
  int64_t called_step_ = 0;
  Clock::time_point called_at_ = Clock::now();
  // When data was asked for first, when the first step began to wait for it, and the end of the last step.
  Clock::time_point asked_at_, began_at_, ended_at_;
  Clock::time_point noted_at_ = Clock::now();
  LatelyMean own_seconds_;
  double waited_ = 0;  // of the loader's time, what the replica has noted
  std::string trained_digest_;
};

}  // namespace polystill::student_worker
