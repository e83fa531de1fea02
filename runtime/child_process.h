#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill {

// A program that runs as a child: stdin is /dev/null, stdout and stderr go to a log file or a pipe. It is in a process
// group of its own, so that Ctrl-C reaches this program alone, and is killed when this program dies. Not thread-safe;
// start it from a thread that lives as long as the child may (the kernel ties the child to that thread).
class ChildProcess {
 public:
  struct Options {
    std::string name;
    // argv[0] is the path of the program.
    std::vector<std::string> argv;
    // Its folder is made. Empty with `output`.
    std::string log;
    // Keep what the log holds already.
    bool append = false;
    // An open file that stdout and stderr go to in place of the log; stays the caller's. -1: none.
    int output = -1;
  };
  // The message names the program or the log.
  static absl::StatusOr<ChildProcess> Start(const Options& options);

  // How it ended: "ended with status 1", "was killed by signal 9 (Killed)"; nothing while it runs. Does not block.
  const std::optional<std::string>& Poll();
  // Whether it has ended with status 0.
  bool succeeded() const { return exit_status_ == 0; }
  // Nothing while it runs, or when a signal killed it.
  std::optional<int> exit_status() const { return exit_status_; }
  // Sends a signal, unless it has ended.
  void Signal(int signal);
  // Kills it and what it started in its process group, and waits for its end.
  void KillGroup();

  const std::string& name() const { return name_; }
  const std::string& log() const { return log_; }
  // Size of the log before the child wrote to it.
  int64_t log_start() const { return log_start_; }
  pid_t pid() const { return pid_; }

 private:
  ChildProcess() = default;
  // With what waitpid said.
  void Reaped(int status);

  std::string name_;
  std::string log_;
  int64_t log_start_ = 0;
  pid_t pid_ = 0;
  std::optional<std::string> ended_;
  std::optional<int> exit_status_;
};

}  // namespace polystill
