#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "collectives/group.h"
#include "collectives/store_server.h"

namespace polystill::collectives {

// For tests: the ranks of a group as processes of their own. A test program names what its ranks do and hands over
// main:
//
//   int main(int argc, char** argv) { return RankTestMain(argc, argv, {{"sum", SumRank}}); }
//
// and a test starts them with RankProcesses("sum", 3, argument): this program again, once a rank.

// What one rank does; what it returns is its exit status. `argument`: the test's. It may talk to the test on stdout.
using RankFunction = std::function<int(const Group::Options& options, const std::string& argument)>;

int RankTestMain(int argc, char** argv, std::map<std::string, RankFunction> functions);

class RankProcesses {
 public:
  RankProcesses(const std::string& function, int world_size, const std::string& argument = "");
  // Kills what still runs.
  ~RankProcesses();
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  // The next line on the rank's stdout; empty at its end.
  std::string ReadLine(int rank);
  void Kill(int rank);
  // Stands still from then on, with its connections open; goes on.
  void Stop(int rank);
  void Continue(int rank);
  // Its exit status; 128 + signal when a signal ended it.
  int Wait(int rank);

 private:
  struct Process {
    pid_t pid = -1;
    FILE* output = nullptr;
  };
  std::unique_ptr<StoreServer> store_;
  std::vector<Process> processes_;
};

}  // namespace polystill::collectives
