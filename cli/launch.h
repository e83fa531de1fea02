#pragma once

#include <string>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::cli {

// A process to start: argv[0] is the program's path.
struct Launch {
  // "coordinator", "teacher-english-0", "student-1": also the name of its log.
  std::string name;
  std::vector<std::string> argv;
};

// `folder`: where the programs are.
Launch LaunchCoordinator(const std::string& folder, const std::string& run_file,
                         const std::vector<std::string>& settings, bool overwrite, const std::string& address_file);

// The teacher servers that the student's losses ask (those with an address run elsewhere) and the student workers,
// which join the coordinator at `address`.
std::vector<Launch> LaunchMembers(const std::string& folder, const v1::RunSpec& spec, const std::string& address);

}  // namespace polystill::cli
