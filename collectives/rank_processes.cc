#include "collectives/rank_processes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace polystill::collectives {
namespace {

constexpr char kRankFlag[] = "--polystill-rank";

// argv of a rank: program, kRankFlag, function, rank, world size, port of the store, argument.
int RunRank(char** argv, const std::map<std::string, RankFunction>& functions) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  Group::Options options;
  options.rank = std::atoi(argv[3]);
  options.world_size = std::atoi(argv[4]);
  options.store_host = "127.0.0.1";
  options.store_port = std::atoi(argv[5]);
  options.store_prefix = "gen/1";
  return functions.at(argv[2])(options, argv[6]);
}

}  // namespace

int RankTestMain(int argc, char** argv, std::map<std::string, RankFunction> functions) {
  if (argc == 7 && std::string(argv[1]) == kRankFlag) return RunRank(argv, functions);
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

RankProcesses::RankProcesses(const std::string& function, int world_size, const std::string& argument) {
  auto store = StoreServer::Start("127.0.0.1");
  if (!store.ok()) throw std::runtime_error(store.status().ToString());
  store_ = *std::move(store);
  for (int rank = 0; rank < world_size; ++rank) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    const std::string numbers[] = {absl::StrCat(rank), absl::StrCat(world_size), absl::StrCat(store_->port())};
    const char* argv[] = {"/proc/self/exe",   kRankFlag,          function.c_str(), numbers[0].c_str(),
                          numbers[1].c_str(), numbers[2].c_str(), argument.c_str(), nullptr};
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(ends[1], STDOUT_FILENO);
      execv(argv[0], const_cast<char**>(argv));
      _exit(127);
    }
    close(ends[1]);
    processes_.push_back({pid, fdopen(ends[0], "r")});
  }
}

RankProcesses::~RankProcesses() {
  for (size_t rank = 0; rank < processes_.size(); ++rank) {
    if (processes_[rank].pid > 0) {
      Kill(static_cast<int>(rank));
      Wait(static_cast<int>(rank));
    }
    fclose(processes_[rank].output);
  }
}

std::string RankProcesses::ReadLine(int rank) {
  std::string line;
  for (int c; (c = fgetc(processes_[rank].output)) != EOF && c != '\n';) line.push_back(static_cast<char>(c));
  return line;
}

void RankProcesses::Kill(int rank) { kill(processes_[rank].pid, SIGKILL); }

void RankProcesses::Stop(int rank) { kill(processes_[rank].pid, SIGSTOP); }
void RankProcesses::Continue(int rank) { kill(processes_[rank].pid, SIGCONT); }

int RankProcesses::Wait(int rank) {
  int status = 0;
  waitpid(processes_[rank].pid, &status, 0);
  processes_[rank].pid = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace polystill::collectives
