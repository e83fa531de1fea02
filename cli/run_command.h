#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace polystill::cli {

struct RunOptions {
  std::string run_file;
  // Overrides "dotted.path=value".
  std::vector<std::string> settings;
  // Delete an earlier run in the same folder.
  bool overwrite = false;
  // Go on with the run in the folder; with `resume_or_start` only when there is one.
  bool resume = false;
  bool resume_or_start = false;
  // Folder of the programs.
  std::string programs;
  // Whether `out` is a terminal.
  bool terminal = false;
};

// A whole run on this machine:
//
//   1. Read the run file; start the coordinator and wait for its address.
//   2. Start teacher servers and student workers; follow the run's status, drawing progress on `out`.
//   3. A process that dies, Ctrl-C, or the coordinator's word ends it; wait for everybody, kill whoever stays.
//   4. Print the table, make report.html, and print, last, the path of the report; or on `err` what failed, with the
//   end of the log.
//
// Returns the exit code (cli/exit_codes.h). Call it from the main thread, before any other is started.
int Run(RunOptions options, std::ostream& out, std::ostream& err);

}  // namespace polystill::cli
