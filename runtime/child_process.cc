#include "runtime/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill {
namespace {

// Between fork and exec: only calls that are safe in a signal handler. Tells `report` the errno of what failed.
[[noreturn]] void Exec(char* const* argv, int log, int report, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  const int null = ::open("/dev/null", O_RDONLY);
  const bool ready = ::prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && ::getppid() == parent && ::setpgid(0, 0) == 0 &&
                     null >= 0 && ::dup2(null, STDIN_FILENO) >= 0 && ::dup2(log, STDOUT_FILENO) >= 0 &&
                     ::dup2(log, STDERR_FILENO) >= 0 && ::sigprocmask(SIG_SETMASK, &none, nullptr) == 0 &&
                     ::signal(SIGPIPE, SIG_DFL) != SIG_ERR;
  if (ready) ::execv(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t told = ::write(report, &error, sizeof(error));
  ::_exit(127);
}

// The errno that the child reports; 0 when the pipe closed by exec.
int ReadReport(int report) {
  int error = 0;
  ssize_t got = 0;
  do {
    got = ::read(report, &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  return got == sizeof(error) ? error : 0;
}

// Where the child writes, for the caller to close.
absl::StatusOr<int> OpenOutput(const ChildProcess::Options& options) {
  if (options.output >= 0) {
    const int copy = ::fcntl(options.output, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return FileError(errno, options.argv[0], "start");
    return copy;
  }
  RETURN_IF_ERROR(MakeFolder(std::filesystem::path(options.log).parent_path().string()));
  const int keep = options.append ? O_APPEND : O_APPEND | O_TRUNC;
  const int log = ::open(options.log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | keep, 0644);
  if (log < 0) return FileError(errno, options.log, "open");
  return log;
}

}  // namespace

absl::StatusOr<ChildProcess> ChildProcess::Start(const Options& options) {
  ASSIGN_OR_RETURN(const int log, OpenOutput(options));
  ChildProcess child;
  child.name_ = options.name;
  child.log_ = options.log;
  struct stat info;
  if (::fstat(log, &info) == 0) child.log_start_ = info.st_size;
  std::vector<char*> argv;
  for (const std::string& argument : options.argv) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  int report[2];
  if (::pipe2(report, O_CLOEXEC) != 0) {
    const int error = errno;
    ::close(log);
    return FileError(error, options.argv[0], "start");
  }
  const pid_t parent = ::getpid();
  child.pid_ = ::fork();
  if (child.pid_ == 0) Exec(argv.data(), log, report[1], parent);
  int error = child.pid_ < 0 ? errno : 0;
  ::close(log);
  ::close(report[1]);
  if (child.pid_ > 0 && (error = ReadReport(report[0])) != 0) ::waitpid(child.pid_, nullptr, 0);
  ::close(report[0]);
  if (error != 0) return FileError(error, options.argv[0], "start");
  return child;
}

const std::optional<std::string>& ChildProcess::Poll() {
  int status = 0;
  if (!ended_.has_value() && ::waitpid(pid_, &status, WNOHANG) == pid_) Reaped(status);
  return ended_;
}

void ChildProcess::Reaped(int status) {
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    ended_ = absl::StrCat("was killed by signal ", signal, " (", ::strsignal(signal), ")");
  } else {
    exit_status_ = WEXITSTATUS(status);
    ended_ = absl::StrCat("ended with status ", *exit_status_);
  }
}

void ChildProcess::Signal(int signal) {
  // Not reaped means that the process id is still the child's own.
  if (!Poll().has_value()) ::kill(pid_, signal);
}

void ChildProcess::KillGroup() {
  // Before it is reaped: until then no other group can have its id.
  if (!ended_.has_value()) ::kill(-pid_, SIGKILL);
  int status = 0;
  pid_t got = -1;
  while (!ended_.has_value() && (got = ::waitpid(pid_, &status, 0)) < 0 && errno == EINTR) {
  }
  if (!ended_.has_value() && got == pid_) Reaped(status);
}

}  // namespace polystill
