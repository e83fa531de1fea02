#pragma once

#include <string>
#include <vector>

namespace polystill::coordinator {

struct CoordinatorOptions {
  // Run file, and overrides "dotted.path=value".
  std::string spec;
  std::vector<std::string> settings;
  // host:port; port 0: any free one.
  std::string listen = "127.0.0.1:0";
  // Host that workers and teachers are told; that of `listen` when empty.
  std::string advertise;
  // Allows another host than loopback, without TLS.
  bool insecure = false;
  // host:port at which Prometheus reads; none when empty.
  std::string metrics;
  // File that gets the bound host:port; none when empty.
  std::string address_file;
  // Deletes an earlier run in the same folder.
  bool overwrite = false;
  // Goes on with the run in the folder.
  bool resume = false;
  // Goes on with the run in the folder when there is one, else starts it.
  bool resume_or_start = false;
  // Reads the corpus and prints what the run would do and need; starts and writes nothing.
  bool dry_run = false;
};

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitStopped = 130;

// A whole run as its coordinator: from the run file to the report. Returns the process's exit code; what went wrong is
// in the log. SIGINT and SIGTERM stop the run; a second one ends the process at once. Call once, from main, before any
// other thread is started.
int RunCoordinator(const CoordinatorOptions& options);

}  // namespace polystill::coordinator
