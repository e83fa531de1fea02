#pragma once

#include <atomic>
#include <stop_token>
#include <thread>

namespace polystill::student_worker {

// Turns the first SIGINT or SIGTERM into a request to stop; a second one ends the process at once. Make it before any
// other thread is started, since threads inherit which signals they block.
class Signals {
 public:
  explicit Signals(std::stop_source stop);
  ~Signals();

  // The signal that came; 0: none.
  int received() const { return received_; }

 private:
  void Watch();

  std::stop_source stop_;
  std::atomic<int> received_ = 0;
  std::thread thread_;
};

}  // namespace polystill::student_worker
