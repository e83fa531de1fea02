#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "models/python_engine.h"
#include "runtime/child_process.h"

namespace polystill::models {

// An open file, closed at the end.
class OpenFile {
 public:
  explicit OpenFile(int file = -1) : file_(file) {}
  ~OpenFile();
  OpenFile(OpenFile&& other) noexcept : file_(other.file_) { other.file_ = -1; }
  OpenFile& operator=(OpenFile&& other) noexcept;
  int get() const { return file_; }

 private:
  int file_;
};

// One Python process that serves a package's model; killed, with what it started, at the end. What it prints goes to
// this program's log, line by line. Not thread-safe, and bound to the thread that starts it (runtime/child_process.h).
class PythonProcess {
 public:
  // When it cannot be started: FAILED_PRECONDITION, or FileError (runtime/files.h) of what is short.
  static absl::StatusOr<std::unique_ptr<PythonProcess>> Start(const PythonOptions& options);
  ~PythonProcess();

  // Copies what it prints, until it has ended (true), or `wake` can be read or `patience` has passed (false). A
  // negative patience has no end.
  bool Watch(int wake, std::chrono::milliseconds patience);

  // Where it serves, for gRPC.
  const std::string& target() const { return target_; }
  // Removes the socket's name: who is connected stays so.
  void RemoveSocket();
  pid_t pid() const { return child_.pid(); }
  // After its end: "Python process 71 ended with status 1 WHEN; the last that it printed: ...".
  std::string Obituary(std::string_view when = "");

 private:
  PythonProcess(ChildProcess child, OpenFile output, OpenFile exit, std::string socket_folder, std::string target);
  // Reads some of what there is; false at the end of it.
  bool ReadOutput();
  void LogLine();

  ChildProcess child_;
  OpenFile output_;
  OpenFile exit_;  // a pidfd
  std::string socket_folder_;
  const std::string target_;
  std::string line_;       // not ended yet
  std::string last_line_;  // that is not empty
};

}  // namespace polystill::models
