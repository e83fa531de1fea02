#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/mutex.h"
#include "teacher_server/batch_policy.h"
#include "teacher_server/fair_queue.h"
#include "teacher_server/label_task.h"
#include "teacher_server/metrics.h"

namespace polystill::teacher_server {

// Gathers requests of all callers into batches and hands them to the model, as many batches at a time as it has
// threads. Callers share its tokens fairly, by tenant and priority, and so the room where they wait.
//
//   callers --Submit--> FairQueue --order of turns--> DecideBatch --> batch --> label --> done
//                           |
//                           '--cancelled, expired, shed for another tenant's sake--> done with why
//
// Thread-safe.
class Batcher {
 public:
  using Answers = std::vector<absl::StatusOr<Answer>>;
  // One answer a request, in order. Called by the batcher's own threads alone, by several at once.
  using Label = std::function<Answers(const std::vector<const v1::LabelRequest*>&)>;
  using Now = std::function<Time()>;

  // `threads`: batches that are labelled at once. `metrics` may be null.
  Batcher(BatchLimits batch, QueueLimits queue, int threads, Label label, Now now = std::chrono::steady_clock::now,
          TeacherMetrics* metrics = nullptr);
  // Finishes the batches under way; what still waits is answered with UNAVAILABLE.
  ~Batcher();

  // Queues a task (its arrival is set here). RESOURCE_EXHAUSTED when the queue is full: `done` is not called then.
  // A task that waits may get the same later, when other tenants need the room that its own has borrowed.
  absl::Status Submit(LabelTask task);

 private:
  // A task that the model is not to see.
  struct Dead {
    LabelTask task;
    absl::Status why;
  };

  void Run();
  // Waits for the next batch, or tasks that are dead. False when the batcher stops.
  bool Next(std::vector<LabelTask>* batch, std::vector<Dead>* dead);
  void SortOutDead(std::vector<Dead>* dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  BatchDecision Decide() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ShowWaiting() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Process(std::vector<LabelTask> batch);
  static int64_t AnswerBytesOf(const std::vector<LabelTask>& batch);
  // A batch whose labelling began at `start` and is over.
  void Count(const std::vector<LabelTask>& batch, Time start);

  const BatchLimits batch_limits_;
  const Label label_;
  const Now now_;
  TeacherMetrics* const metrics_;

  Mutex mutex_;
  CondVar changed_;
  FairQueue queue_ ABSL_GUARDED_BY(mutex_);
  // Answered by the next thread that is free: those who submit may hold locks that `done` takes.
  std::vector<LabelTask> shed_ ABSL_GUARDED_BY(mutex_);
  // Of the answers of the batches under way.
  int64_t computing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::vector<std::thread> threads_;  // last: start when everything else is there
};

}  // namespace polystill::teacher_server
