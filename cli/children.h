#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/launch.h"
#include "cli/signals.h"
#include "runtime/child_process.h"

namespace polystill::cli {

// The processes of one run. Whatever still runs is killed by the destructor. Not thread-safe.
class Children {
 public:
  // Logs go to <log_folder>/<name>.log. `signals` must live longer.
  Children(std::string log_folder, Signals* signals) : log_folder_(std::move(log_folder)), signals_(signals) {}
  ~Children();
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  // `append`: keeps what the log holds already.
  absl::Status Start(const Launch& launch, bool append);

  // Starts one that has ended again, by `launch`, which has its name; its log goes on.
  absl::Status Restart(ChildProcess* child, const Launch& launch);

  // Looks who has ended since; cheap.
  void Poll();
  // In the order in which their end was seen.
  const std::vector<ChildProcess*>& ended() const { return ended_; }
  bool all_ended() const { return ended_.size() == children_.size(); }
  bool HasEnded(const std::string& name) const;
  // Those with a name of this beginning that have not ended by themselves; a signal may have killed them.
  int CountLeft(const std::string& prefix) const;

  // Waits for the host:port that the one called `name` writes into `file` when it listens, and removes the file.
  // UNAVAILABLE when it ends before, DEADLINE_EXCEEDED when `limit` passes, CANCELLED when a signal asks to end.
  absl::StatusOr<std::string> AwaitAddress(const std::string& name, const std::string& file,
                                           std::chrono::milliseconds limit);

  // Waits until all, or the one called `name`, have ended; false when `limit` passed first, or a signal asks to end at
  // once.
  bool WaitForAll(std::chrono::milliseconds limit);
  bool WaitFor(const std::string& name, std::chrono::milliseconds limit);
  // Ends all that still run: SIGTERM, then, after `patience` or at a signal, SIGKILL. SIGKILL at once when a signal has
  // cut an earlier wait short.
  void EndAll(std::chrono::milliseconds patience);

  const std::string& log_folder() const { return log_folder_; }

 private:
  ChildProcess::Options OptionsOf(const Launch& launch, bool append) const;
  bool WaitUntil(const std::function<bool()>& reached, std::chrono::milliseconds limit);
  void SignalAll(int signal);

  const std::string log_folder_;
  Signals* const signals_;
  // A deque: pointers into it stay valid.
  std::deque<ChildProcess> children_;
  std::vector<ChildProcess*> ended_;
  // A signal has cut a wait short.
  bool hurried_ = false;
};

// "student-1 was killed by signal 9 (Killed); end of .../student-1.log:" and the last lines of its log.
std::string Obituary(ChildProcess* child);

}  // namespace polystill::cli
