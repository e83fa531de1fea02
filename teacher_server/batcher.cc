#include "teacher_server/batcher.h"

#include <utility>

namespace polystill::teacher_server {
namespace {

bool IsCancelled(const LabelTask& task) { return task.requester.cancelled != nullptr && *task.requester.cancelled; }

}  // namespace

Batcher::Batcher(BatchLimits batch, QueueLimits queue, int threads, Label label, Now now, TeacherMetrics* metrics)
    : batch_limits_(batch), label_(std::move(label)), now_(std::move(now)), metrics_(metrics), queue_(queue) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Batcher::~Batcher() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  std::vector<LabelTask> left;
  {
    MutexLock lock(&mutex_);
    left = std::move(shed_);
    while (!queue_.empty()) left.push_back(queue_.Pop());
  }
  for (LabelTask& task : left) task.done(absl::UnavailableError("the teacher server is shutting down"));
}

absl::Status Batcher::Submit(LabelTask task) {
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the teacher server is shutting down");
  task.arrival = now_();
  const absl::Status status = queue_.Push(std::move(task), &shed_);
  ShowWaiting();
  changed_.NotifyOne();  // also when it is full: what is cancelled may make room
  return status;
}

void Batcher::ShowWaiting() const {
  if (metrics_ == nullptr) return;
  metrics_->Waiting(v1::PRIORITY_TRAINING, queue_.load(FairQueue::kTraining));
  metrics_->Waiting(v1::PRIORITY_ON_DEMAND, queue_.load(FairQueue::kOnDemand));
}

void Batcher::Run() {
  std::vector<LabelTask> batch;
  std::vector<Dead> dead;
  while (Next(&batch, &dead)) {
    for (Dead& one : std::exchange(dead, {})) one.task.done(std::move(one.why));
    if (!batch.empty()) Process(std::exchange(batch, {}));
  }
}

bool Batcher::Next(std::vector<LabelTask>* batch, std::vector<Dead>* dead) {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    SortOutDead(dead);
    const BatchDecision decision = Decide();
    for (size_t i = 0; i < decision.take; ++i) batch->push_back(queue_.Pop());
    computing_bytes_ += AnswerBytesOf(*batch);
    if (!batch->empty() && !queue_.empty()) changed_.NotifyOne();  // another thread may take of the rest
    if (!batch->empty() || !dead->empty()) {
      ShowWaiting();
      return true;
    }
    if (decision.until == Time::max()) {
      changed_.Wait(&mutex_);
    } else {
      changed_.WaitFor(&mutex_, decision.until - now_());
    }
  }
  return false;
}

void Batcher::SortOutDead(std::vector<Dead>* dead) {
  const Time now = now_();
  const auto is_dead = [now](const LabelTask& task) { return IsCancelled(task) || task.requester.deadline <= now; };
  for (LabelTask& task : queue_.RemoveIf(is_dead)) {
    const bool cancelled = IsCancelled(task);
    dead->push_back(
        {std::move(task), cancelled ? absl::CancelledError("cancelled by the caller")
                                    : absl::DeadlineExceededError("the request's time was up before its turn came")});
  }
  for (LabelTask& task : std::exchange(shed_, {})) {
    dead->push_back({std::move(task), absl::ResourceExhaustedError("the teacher's queue is full: other tenants need "
                                                                   "this request's room; try again later")});
  }
}

int64_t Batcher::AnswerBytesOf(const std::vector<LabelTask>& batch) {
  int64_t bytes = 0;
  for (const LabelTask& task : batch) bytes += task.answer_bytes;
  return bytes;
}

BatchDecision Batcher::Decide() const {
  std::vector<QueuedRequest> front;  // more than a batch can hold is of no interest
  for (const LabelTask* task : queue_.Front(static_cast<size_t>(batch_limits_.max_rows) + 1)) {
    front.push_back({task->request.inputs_size(), task->tokens, task->arrival, task->answer_bytes});
  }
  BatchLimits limits = batch_limits_;
  limits.max_bytes -= computing_bytes_;
  // Whoever ends a batch looks again.
  if (computing_bytes_ > 0 && !front.empty() && front[0].bytes > limits.max_bytes) return {};
  return DecideBatch(limits, front, now_());
}

void Batcher::Count(const std::vector<LabelTask>& batch, Time start) {
  const auto seconds = [](Time from, Time to) { return std::chrono::duration<double>(to - from).count(); };
  int64_t records = 0, tokens = 0;
  for (const LabelTask& task : batch) {
    records += task.request.inputs_size();
    tokens += task.tokens;
    metrics_->Queued(seconds(task.arrival, start));
  }
  metrics_->Computed(records, tokens, seconds(start, now_()));
}

void Batcher::Process(std::vector<LabelTask> batch) {
  std::vector<const v1::LabelRequest*> requests;
  for (const LabelTask& task : batch) requests.push_back(&task.request);
  const Time start = now_();
  Answers answers = label_(requests);
  if (metrics_ != nullptr) Count(batch, start);
  for (size_t i = 0; i < batch.size(); ++i) batch[i].done(std::move(answers[i]));
  MutexLock lock(&mutex_);
  computing_bytes_ -= AnswerBytesOf(batch);
  changed_.NotifyOne();
}

}  // namespace polystill::teacher_server
