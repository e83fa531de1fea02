#pragma once

#include <chrono>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "coordinator/run_events.h"
#include "runtime/mutex.h"

namespace polystill::coordinator {

// What happened, on its way from every thread to the one that decides. Bounded by its posters: a stream posts its next
// message only once the last one was handled. Thread-safe.
class EventQueue {
 public:
  void Post(Event event) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    events_.push_back(std::move(event));
    posted_.NotifyOne();
  }

  // All that was posted, in order; waits until there is something, `timeout` at most.
  std::vector<Event> Take(std::chrono::milliseconds timeout) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (events_.empty()) posted_.WaitFor(&mutex_, timeout);
    return std::exchange(events_, {});
  }

 private:
  Mutex mutex_;
  CondVar posted_;
  std::vector<Event> events_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::coordinator
