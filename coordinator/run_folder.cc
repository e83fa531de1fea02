#include "coordinator/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <string_view>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;

bool IsModelName(const std::string& name) {
  constexpr std::string_view kStudents[] = {"distilled", "no_teacher", "pseudo_label", "gold", "gold_all"};
  return std::find(std::begin(kStudents), std::end(kStudents), name) != std::end(kStudents) ||
         absl::StartsWith(name, "teacher-");
}

// What a run writes, as far as it is there. Logs belong to whoever started the processes.
std::vector<fs::path> OwnFiles(const fs::path& folder) {
  std::vector<fs::path> own;
  const std::string state = kStateFile;
  for (const std::string& name :
       {state, state + "-wal", state + "-shm", std::string(kSpecFile), std::string(kReportFile),
        std::string(kHtmlReportFile), std::string("predictions.parquet"), std::string(kLatencyFile),
        std::string("tokenizer/tokenizer.model")}) {
    if (fs::exists(folder / name)) own.push_back(folder / name);
  }
  for (const char* kind : {"models", "checkpoints"}) {
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(folder / kind, missing)) {
      if (IsModelName(entry.path().filename().string())) own.push_back(entry.path());
    }
  }
  return own;
}

bool Contains(const fs::path& outer, const fs::path& inner) {
  const fs::path a = fs::weakly_canonical(outer), b = fs::weakly_canonical(inner);
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first == a.end();
}

absl::Status DeleteOwnFiles(const std::string& folder, const std::vector<RunFolder::Input>& inputs) {
  const std::vector<fs::path> own = OwnFiles(folder);
  for (const fs::path& file : own) {
    for (const RunFolder::Input& input : inputs) {
      if (input.path.empty() || !Contains(file, input.path)) continue;
      return absl::InvalidArgumentError(absl::StrCat("--overwrite would delete ", file.string(), ", which ", input.key,
                                                     " reads (", input.path, "); choose another output"));
    }
  }
  for (const fs::path& file : own) {
    std::error_code error;
    fs::remove_all(file, error);
    if (error) return FileError(error.value(), file.string(), "delete");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RunFolder> RunFolder::Open(const std::string& path, bool overwrite, const std::vector<Input>& inputs) {
  RETURN_IF_ERROR(MakeFolder(path));
  const std::string lock_path = absl::StrCat(path, "/", kLockFile);
  const int lock = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) return FileError(errno, lock_path, "open");
  RunFolder folder(path, lock);
  if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return FileError(errno, lock_path, "lock");
    return absl::AlreadyExistsError(absl::StrCat(path,
                                                 ": another run works in this folder; choose another output, or stop "
                                                 "that one"));
  }
  if (!fs::exists(folder.PathOf(kStateFile))) return folder;
  if (!overwrite) {
    return absl::AlreadyExistsError(
        absl::StrCat(path, ": holds an earlier run; choose another output, or delete that run with --overwrite"));
  }
  RETURN_IF_ERROR(DeleteOwnFiles(path, inputs));
  return folder;
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace polystill::coordinator
