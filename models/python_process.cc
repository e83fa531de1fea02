#include "models/python_process.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/cores.h"
#include "runtime/files.h"
#include "runtime/python.h"
#include "runtime/status.h"

namespace polystill::models {
namespace {

constexpr size_t kMaxLineBytes = 4'096;
constexpr size_t kReadBytes = 16'384;
constexpr int kMostReads = 4;
// sockaddr_un's path, with its end.
constexpr size_t kMaxSocketPath = 107;

// A folder that nobody else may enter.
absl::StatusOr<std::string> MakeSocketFolder() {
  std::error_code error;
  std::string folder = (std::filesystem::temp_directory_path(error) / "polystill-XXXXXX").string();
  if (error) return FileError(error.value(), "TMPDIR", "use");
  if (::mkdtemp(folder.data()) == nullptr) return FileError(errno, folder, "create");
  return folder;
}

std::string Or(const char* variable, const std::string& otherwise) {
  const char* const given = std::getenv(variable);
  return given != nullptr && *given != '\0' ? given : otherwise;
}

// What the process is told beside this one's environment. Nothing may be written into the package: its digest is that
// of every file.
std::vector<std::string> EnvironmentOf(const PythonOptions& options, const std::string& programs) {
  const int threads = std::max(1, UsableCores() / options.processes);
  std::vector<std::string> environment = {
      "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "PYTHONSAFEPATH=1",
      absl::StrCat("OMP_NUM_THREADS=", Or("OMP_NUM_THREADS", absl::StrCat(threads)))};
  std::string modules = PythonModules(programs, "polystill");
  if (modules.empty()) return environment;  // installed, or nowhere
  const std::string more = Or("PYTHONPATH", "");
  if (!more.empty()) absl::StrAppend(&modules, ":", more);
  environment.push_back(absl::StrCat("PYTHONPATH=", modules));
  return environment;
}

std::vector<std::string> CommandOf(const PythonOptions& options, const std::string& target) {
  const std::string programs = ProgramFolder().value_or("");
  std::vector<std::string> command = {"/usr/bin/env"};
  for (std::string& variable : EnvironmentOf(options, programs)) command.push_back(std::move(variable));
  const std::string python = options.interpreter.empty() ? PythonInterpreter(programs) : options.interpreter;
  for (const std::string& word : {python, std::string("-m"), std::string("polystill.serve_model"), options.folder,
                                  std::string("--listen"), target, std::string("--device"), options.device}) {
    command.push_back(word);
  }
  return command;
}

}  // namespace

OpenFile::~OpenFile() {
  if (file_ >= 0) ::close(file_);
}

OpenFile& OpenFile::operator=(OpenFile&& other) noexcept {
  std::swap(file_, other.file_);
  return *this;
}

absl::StatusOr<std::unique_ptr<PythonProcess>> PythonProcess::Start(const PythonOptions& options) {
  ASSIGN_OR_RETURN(const std::string folder, MakeSocketFolder());
  const std::string socket = absl::StrCat(folder, "/socket");
  int pipe[2];
  if (socket.size() > kMaxSocketPath || ::pipe2(pipe, O_CLOEXEC) != 0) {
    ::rmdir(folder.c_str());
    return absl::FailedPreconditionError(
        absl::StrCat(socket, ": no socket can have so long a name; set TMPDIR to a shorter folder"));
  }
  OpenFile output(pipe[0]);
  const OpenFile input(pipe[1]);
  ::fcntl(output.get(), F_SETFL, O_NONBLOCK);
  const std::string target = absl::StrCat("unix:", socket);
  auto child =
      ChildProcess::Start({.name = "python", .argv = CommandOf(options, target), .log = "", .output = input.get()});
  if (!child.ok()) {
    ::rmdir(folder.c_str());
    return child.status();
  }
  // glibc's has no C linkage before 2.37.
  OpenFile exit(static_cast<int>(::syscall(SYS_pidfd_open, child->pid(), 0)));
  const int error = errno;
  std::unique_ptr<PythonProcess> process(
      new PythonProcess(*std::move(child), std::move(output), std::move(exit), folder, target));
  if (process->exit_.get() < 0) return FileError(error, absl::StrCat("process ", process->pid()), "watch");
  return process;
}

PythonProcess::PythonProcess(ChildProcess child, OpenFile output, OpenFile exit, std::string socket_folder,
                             std::string target)
    : child_(std::move(child)),
      output_(std::move(output)),
      exit_(std::move(exit)),
      socket_folder_(std::move(socket_folder)),
      target_(std::move(target)) {}

PythonProcess::~PythonProcess() {
  child_.KillGroup();
  RemoveSocket();
}

void PythonProcess::RemoveSocket() {
  if (socket_folder_.empty()) return;
  std::error_code ignored;
  std::filesystem::remove_all(socket_folder_, ignored);
  socket_folder_.clear();
}

bool PythonProcess::Watch(int wake, std::chrono::milliseconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    const int timeout = patience.count() < 0 ? -1 : static_cast<int>(std::max<int64_t>(left.count(), 0));
    std::array<pollfd, 3> files = {{{exit_.get(), POLLIN, 0}, {wake, POLLIN, 0}, {output_.get(), POLLIN, 0}}};
    const int ready = ::poll(files.data(), files.size(), timeout);
    if (files[2].revents != 0 && !ReadOutput()) output_ = OpenFile();  // poll passes over -1
    if (ready > 0 && files[0].revents != 0) {
      child_.KillGroup();  // what it started lives on without it
      if (output_.get() >= 0) ReadOutput();
      if (!line_.empty()) LogLine();
      return true;
    }
    if (ready == 0 || files[1].revents != 0) return false;
  }
}

bool PythonProcess::ReadOutput() {
  std::array<char, kReadBytes> part;
  ssize_t got = 1;
  // A pipe's fill at most: who prints without pause must not keep this thread from its other duties.
  for (int reads = 0; reads < kMostReads && got > 0; ++reads) {
    got = ::read(output_.get(), part.data(), part.size());
    for (ssize_t i = 0; i < got; ++i) {
      if (part[i] != '\n') line_ += part[i];
      if (part[i] == '\n' || line_.size() == kMaxLineBytes) LogLine();
    }
  }
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

void PythonProcess::LogLine() {
  spdlog::info("python {}: {}", child_.pid(), line_);
  if (line_.find_first_not_of(" \t\r") != std::string::npos) last_line_ = line_;
  line_.clear();
}

std::string PythonProcess::Obituary(std::string_view when) {
  const std::string how = child_.Poll().value_or("has not ended");
  const std::string said = last_line_.empty() ? "" : absl::StrCat("; the last that it printed: ", last_line_);
  return absl::StrCat("Python process ", child_.pid(), " ", how, absl::string_view(when.data(), when.size()), said);
}

}  // namespace polystill::models
