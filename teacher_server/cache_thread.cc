#include "teacher_server/cache_thread.h"

#include <utility>

namespace polystill::teacher_server {

CacheThread::CacheThread(CachedAnswers* answers) : answers_(answers) {
  thread_ = std::thread([this] { Run(); });
}

CacheThread::~CacheThread() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
  std::deque<Question> left;
  {
    MutexLock lock(&mutex_);
    left.swap(waiting_);
  }
  for (Question& question : left) question.done(absl::UnavailableError("the teacher server is shutting down"));
}

void CacheThread::Ask(v1::LabelRequest request, Time deadline, CachedAnswers::Cancelled cancelled,
                      CachedAnswers::Done done) {
  MutexLock lock(&mutex_);
  waiting_.push_back({std::move(request), deadline, std::move(cancelled), std::move(done)});
  changed_.NotifyOne();
}

void CacheThread::Run() {
  while (true) {
    Question next;
    {
      MutexLock lock(&mutex_);
      while (waiting_.empty() && !stopping_) changed_.Wait(&mutex_);
      if (stopping_) return;
      next = std::move(waiting_.front());
      waiting_.pop_front();
    }
    answers_->Ask(std::move(next.request), next.deadline, std::move(next.cancelled), std::move(next.done));
  }
}

}  // namespace polystill::teacher_server
