#include "collectives/background.h"

#include <thread>
#include <utility>

#include "runtime/mutex.h"

namespace polystill::collectives {
namespace {

struct Running {
  Mutex mutex;
  CondVar changed;
  int count ABSL_GUARDED_BY(mutex) = 0;
};

// Never destroyed: threads may outlive main's statics.
Running& TheRunning() {
  static auto* const running = new Running;
  return *running;
}

// Its place is counted already.
void Start(std::function<void()> work) {
  std::thread([work = std::move(work)]() mutable {
    work();
    work = nullptr;  // with all that it holds
    Running& running = TheRunning();
    MutexLock lock(&running.mutex);
    --running.count;
    running.changed.NotifyAll();
  }).detach();
}

}  // namespace

absl::Status RunInBackground(std::function<void()> work, const std::stop_token& interrupt) {
  Running& running = TheRunning();
  std::stop_callback wake(interrupt, [&running] {
    MutexLock lock(&running.mutex);
    running.changed.NotifyAll();
  });
  {
    MutexLock lock(&running.mutex);
    while (running.count >= kMostInBackground && !interrupt.stop_requested()) running.changed.Wait(&running.mutex);
    if (interrupt.stop_requested()) return absl::AbortedError("interrupted");
    ++running.count;
  }
  Start(std::move(work));
  return absl::OkStatus();
}

void RunInBackground(std::function<void()> work) {
  {
    MutexLock lock(&TheRunning().mutex);
    ++TheRunning().count;
  }
  Start(std::move(work));
}

int CountInBackground() {
  MutexLock lock(&TheRunning().mutex);
  return TheRunning().count;
}

}  // namespace polystill::collectives
