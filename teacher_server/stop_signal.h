#pragma once

#include "absl/status/status.h"
#include "runtime/mutex.h"

namespace polystill::teacher_server {

// Lets the main thread wait for the end: SIGTERM, SIGINT, or a thread that says why. One per process.
class StopSignal {
 public:
  // From here on SIGTERM and SIGINT end Wait() instead of the process.
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  // Ends Wait() with `why`; the first one counts.
  void Notify(absl::Status why);
  // OK after a signal.
  absl::Status Wait();

 private:
  Mutex mutex_;
  absl::Status why_ ABSL_GUARDED_BY(mutex_);
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace polystill::teacher_server
