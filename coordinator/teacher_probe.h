#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "coordinator/event_queue.h"
#include "runtime/mutex.h"

namespace polystill::coordinator {

// Asks teachers that run elsewhere what they serve, without waiting for them. Thread-safe.
class TeacherProbe {
 public:
  // How long an address may take to answer, its process being started perhaps.
  static constexpr std::chrono::seconds kPatience{30};

  explicit TeacherProbe(EventQueue* events);
  // Cancels what is under way and waits for it.
  ~TeacherProbe();

  // Posts TeacherDescribed later.
  void Describe(const std::string& teacher, const std::string& address) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Call;

  EventQueue* const events_;
  Mutex mutex_;
  CondVar idle_;
  int under_way_ ABSL_GUARDED_BY(mutex_) = 0;
  // Kept to the end: the last reference to a channel must not be dropped in its own callback.
  std::vector<std::unique_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace polystill::coordinator
