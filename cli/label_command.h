#pragma once

#include <ostream>
#include <string>

#include "soft_labels/label_job.h"

namespace polystill::cli {

struct LabelCommandOptions {
  // Folder of a teacher package, which servers are started for, or host:port of servers that run, comma between them.
  std::string teacher;
  // Of a package: servers, and threads of all of them together; 0: this machine's cores.
  int replicas = 1;
  int threads = 0;
  // They compute on GPUs, one each.
  bool cuda = false;
  // `teachers` is filled in.
  soft_labels::LabelJobOptions job;
  // Folder of the programs.
  std::string programs;
  // Whether `out` is a terminal.
  bool terminal = false;
};

// A label job on this machine (soft_labels/label_job.h):
//
//   1. Start the teacher's servers, with logs below <out>/logs, and wait for their addresses; or take those given.
//   2. Run the job on a thread, drawing progress on `out`.
//   3. A signal, or the end of the last server, stops it; what is finished stays.
//
// Returns the exit code (cli/exit_codes.h). Call it from the main thread, before any other is started.
int Label(LabelCommandOptions options, std::ostream& out, std::ostream& err);

}  // namespace polystill::cli
