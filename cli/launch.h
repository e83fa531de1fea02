#pragma once

#include <string>
#include <vector>

#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::cli {

// Which name of a launch is a student's.
inline constexpr char kStudentPrefix[] = "student-";

// A process to start: argv[0] is the program's path.
struct Launch {
  // "coordinator", "teacher-english-0", "student-1": also the name of its log.
  std::string name;
  std::vector<std::string> argv;
};

// `folder`: where the programs are. It listens at `address`, host:port with 0 for any free port.
Launch LaunchCoordinator(const std::string& folder, const std::string& run_file,
                         const std::vector<std::string>& settings, const std::string& address);

// The folder in which its teacher servers keep labels (Teacher.cache_mb): of use until the run is done.
std::string LabelCachesOf(const v1::RunSpec& spec);

// The teacher servers that the student's losses ask (those with an address run elsewhere) and the student workers,
// which join the coordinator at `address`. The servers share the machine's `cores` as threads, at least one each;
// one on a GPU has two, to prepare a batch while another is computed.
std::vector<Launch> LaunchMembers(const std::string& folder, const v1::RunSpec& spec, const std::string& address,
                                  int cores);

// Student worker `index`, from 0 on.
Launch LaunchStudent(const std::string& folder, const v1::RunSpec& spec, const std::string& address, int index);

// Whether a run at `status` can do without a child that has ended: a student where enough others are left, of whom
// there are `students`; a teacher server once every job that asks teachers has begun, as a job waits for all replicas
// before it begins. After that the coordinator judges whether enough are left.
bool CanSpare(const std::string& child, const v1::RunSpec& spec, const v1::RunStatus& status, int students);

}  // namespace polystill::cli
