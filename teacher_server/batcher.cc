#include "teacher_server/batcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace polystill::teacher_server {
namespace {

bool IsCancelled(const LabelTask& task) { return task.cancelled != nullptr && *task.cancelled; }

}  // namespace

Batcher::Batcher(BatchLimits batch, QueueLimits queue, int threads, Label label, Now now, TeacherMetrics* metrics)
    : batch_limits_(batch), queue_limits_(queue), label_(std::move(label)), now_(std::move(now)), metrics_(metrics) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Batcher::~Batcher() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
  std::deque<LabelTask> left;
  {
    MutexLock lock(&mutex_);
    left.swap(queue_);
  }
  for (LabelTask& task : left) task.done(absl::UnavailableError("the teacher server is shutting down"));
}

absl::Status Batcher::Submit(LabelTask task) {
  MutexLock lock(&mutex_);
  if (stopping_) return absl::UnavailableError("the teacher server is shutting down");
  const int64_t records = load_.records + task.request.inputs_size();
  const int64_t tokens = load_.tokens + task.tokens;
  const int64_t bytes = load_.bytes + static_cast<int64_t>(task.request.ByteSizeLong());
  if (!queue_.empty() &&
      (records > queue_limits_.max_records || tokens > queue_limits_.max_tokens || bytes > queue_limits_.max_bytes)) {
    changed_.NotifyOne();  // what is cancelled may make room
    return absl::ResourceExhaustedError(absl::StrCat("the teacher's queue is full: ", load_.records, " records of ",
                                                     load_.tokens, " tokens wait; try again later"));
  }
  task.arrival = now_();
  Charge(task, 1);
  queue_.push_back(std::move(task));
  changed_.NotifyOne();
  return absl::OkStatus();
}

void Batcher::Charge(const LabelTask& task, int sign) {
  load_.records += sign * task.request.inputs_size();
  load_.tokens += sign * task.tokens;
  load_.bytes += sign * static_cast<int64_t>(task.request.ByteSizeLong());
  if (metrics_ != nullptr) metrics_->Waiting(load_.records, load_.tokens);
}

void Batcher::Run() {
  std::vector<LabelTask> batch, dead;
  while (Next(&batch, &dead)) {
    for (LabelTask& task : std::exchange(dead, {})) {
      task.done(IsCancelled(task) ? absl::CancelledError("cancelled by the caller")
                                  : absl::DeadlineExceededError("the request's time was up before its turn came"));
    }
    if (!batch.empty()) Process(std::exchange(batch, {}));
  }
}

bool Batcher::Next(std::vector<LabelTask>* batch, std::vector<LabelTask>* dead) {
  MutexLock lock(&mutex_);
  while (!stopping_) {
    SortOutDead(dead);
    const BatchDecision decision = Decide();
    for (size_t i = 0; i < decision.take; ++i) {
      Charge(queue_.front(), -1);
      batch->push_back(std::move(queue_.front()));
      queue_.pop_front();
    }
    computing_bytes_ += AnswerBytesOf(*batch);
    if (!batch->empty() && !queue_.empty()) changed_.NotifyOne();  // another thread may take of the rest
    if (!batch->empty() || !dead->empty()) return true;
    if (decision.until == Time::max()) {
      changed_.Wait(&mutex_);
    } else {
      changed_.WaitFor(&mutex_, decision.until - now_());
    }
  }
  return false;
}

void Batcher::SortOutDead(std::vector<LabelTask>* dead) {
  const Time now = now_();
  const auto first_dead = std::stable_partition(
      queue_.begin(), queue_.end(), [&](const LabelTask& task) { return !IsCancelled(task) && task.deadline > now; });
  for (auto task = first_dead; task != queue_.end(); ++task) {
    Charge(*task, -1);
    dead->push_back(std::move(*task));
  }
  queue_.erase(first_dead, queue_.end());
}

int64_t Batcher::AnswerBytesOf(const std::vector<LabelTask>& batch) {
  int64_t bytes = 0;
  for (const LabelTask& task : batch) bytes += task.answer_bytes;
  return bytes;
}

BatchDecision Batcher::Decide() const {
  std::vector<QueuedRequest> front;  // more than a batch can hold is of no interest
  for (const LabelTask& task : queue_) {
    front.push_back({task.request.inputs_size(), task.tokens, task.arrival, task.answer_bytes});
    if (static_cast<int64_t>(front.size()) > batch_limits_.max_rows) break;
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
