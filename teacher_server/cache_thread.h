#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <thread>

#include "absl/status/status.h"
#include "runtime/mutex.h"
#include "teacher_server/cached_answers.h"

namespace polystill::teacher_server {

// Asks the cache on a thread of its own, since that reads the disk and may answer at once, which callers that hold a
// lock cannot take. In order; what waits is bounded by what callers may have in flight. Thread-safe.
class CacheThread {
 public:
  // `answers` outlives it.
  explicit CacheThread(CachedAnswers* answers);
  // What still waits is answered with UNAVAILABLE.
  ~CacheThread();

  // As CachedAnswers::Ask, but never calls `done` within this call.
  void Ask(v1::LabelRequest request, Time deadline, CachedAnswers::Cancelled cancelled, CachedAnswers::Done done);

 private:
  struct Question {
    v1::LabelRequest request;
    Time deadline;
    CachedAnswers::Cancelled cancelled;
    CachedAnswers::Done done;
  };

  void Run();

  CachedAnswers* const answers_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Question> waiting_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace polystill::teacher_server
