#pragma once

#include <signal.h>

#include <chrono>

namespace polystill::cli {

// Takes SIGINT, SIGTERM, SIGHUP and SIGCHLD out of the normal course: they wait until asked for. SIGPIPE is ignored, so
// that a closed pipe on the output ends no run. Make it before any thread is started; the destructor puts all back.
class Signals {
 public:
  Signals();
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  // The next signal; 0 when none came within `timeout`.
  int Wait(std::chrono::milliseconds timeout);

 private:
  sigset_t waited_;
  sigset_t before_;
  struct sigaction pipe_before_;
};

// Whether a person or the system asks the program to end.
inline bool AsksToEnd(int signal) { return signal == SIGINT || signal == SIGTERM || signal == SIGHUP; }

}  // namespace polystill::cli
