#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "runtime/mutex.h"
#include "teacher_server/batch_policy.h"
#include "teacher_server/metrics.h"

namespace polystill::teacher_server {

// The labels that a request asked for: one for each of its spec's outputs.
using Answer = std::vector<v1::SoftLabels>;

// A valid request on its way to the model.
struct LabelTask {
  v1::LabelRequest request;
  // Tokens of all its records, at most: a text's are known only when it has been tokenised.
  int64_t tokens = 0;
  // Bytes of its answer in memory.
  int64_t answer_bytes = 0;
  Time arrival;
  Time deadline = Time::max();
  // Set by the caller when nobody waits for the answer any more.
  std::shared_ptr<const std::atomic<bool>> cancelled;
  // Called exactly once, by a thread of the batcher's (or its destructor); must not block.
  std::function<void(absl::StatusOr<Answer>)> done;
};

struct QueueLimits {
  int64_t max_records = 16'384;
  int64_t max_tokens = 4 << 20;
  // Memory of the waiting requests.
  int64_t max_bytes = 256 << 20;
};

// Gathers requests of all callers into batches and hands them to the model, as many batches at a time as it has
// threads. First come, first served.
//
//   callers --Submit--> bounded queue --DecideBatch--> batch --less expired and cancelled--> label --> done
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
  absl::Status Submit(LabelTask task);

 private:
  struct Load {
    int64_t records = 0;
    int64_t tokens = 0;
    int64_t bytes = 0;
  };

  void Run();
  // Waits for the next batch; tasks that are expired or cancelled go to `dead`. False when the batcher stops.
  bool Next(std::vector<LabelTask>* batch, std::vector<LabelTask>* dead);
  void SortOutDead(std::vector<LabelTask>* dead) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  BatchDecision Decide() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Charge(const LabelTask& task, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Process(std::vector<LabelTask> batch);
  static int64_t AnswerBytesOf(const std::vector<LabelTask>& batch);
  // A batch whose labelling began at `start` and is over.
  void Count(const std::vector<LabelTask>& batch, Time start);

  const BatchLimits batch_limits_;
  const QueueLimits queue_limits_;
  const Label label_;
  const Now now_;
  TeacherMetrics* const metrics_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<LabelTask> queue_ ABSL_GUARDED_BY(mutex_);
  Load load_ ABSL_GUARDED_BY(mutex_);
  // Of the answers of the batches under way.
  int64_t computing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;

  std::vector<std::thread> threads_;  // last: start when everything else is there
};

}  // namespace polystill::teacher_server
