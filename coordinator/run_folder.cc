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

constexpr char kFileScheme[] = "file://";

bool IsModelName(const std::string& name) {
  constexpr std::string_view kStudents[] = {"distilled", "no_teacher", "pseudo_label", "gold", "gold_all"};
  return std::find(std::begin(kStudents), std::end(kStudents), name) != std::end(kStudents) ||
         absl::StartsWith(name, "teacher-");
}

absl::StatusOr<bool> Exists(const fs::path& path) {
  std::error_code error;
  const bool exists = fs::exists(path, error);
  if (error) return FileError(error.value(), path.string(), "look at");
  return exists;
}

absl::Status AddOwnFolders(const fs::path& folder, std::vector<fs::path>* own) {
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  if (error == std::errc::no_such_file_or_directory) return absl::OkStatus();
  while (!error && entry != fs::directory_iterator()) {
    if (IsModelName(entry->path().filename().string())) own->push_back(entry->path());
    entry.increment(error);
  }
  return error ? FileError(error.value(), folder.string(), "list") : absl::OkStatus();
}

// What a run writes, as far as it is there. Logs belong to whoever started the processes.
absl::StatusOr<std::vector<fs::path>> OwnFiles(const fs::path& folder) {
  std::vector<fs::path> own;
  const std::string state = kStateFile;
  for (const std::string& name :
       {state, state + "-wal", state + "-shm", std::string(kSpecFile), std::string(kReportFile),
        std::string(kAddressFile), std::string(kStatusFile), std::string(kEventsFolder), std::string(kHtmlReportFile),
        std::string(kLatencyFile), std::string(kLabelCacheFolder), std::string("predictions.parquet"),
        std::string("tokenizer/tokenizer.model"), std::string("tokenizer/tokenizer.json")}) {
    ASSIGN_OR_RETURN(const bool exists, Exists(folder / name));
    if (exists) own.push_back(folder / name);
  }
  for (const char* kind : {"models", "checkpoints"}) RETURN_IF_ERROR(AddOwnFolders(folder / kind, &own));
  return own;
}

absl::StatusOr<fs::path> Canonical(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::weakly_canonical(path, error);
  if (error) return FileError(error.value(), path.string(), "resolve");
  return canonical;
}

// The local path that an input names, be it as file:///a/b; what is elsewhere comes back as it is.
std::string LocalPath(const std::string& path) {
  return absl::StartsWith(path, kFileScheme) ? path.substr(sizeof(kFileScheme) - 1) : path;
}

absl::StatusOr<bool> Contains(const fs::path& outer, const fs::path& inner) {
  ASSIGN_OR_RETURN(const fs::path a, Canonical(outer));
  ASSIGN_OR_RETURN(const fs::path b, Canonical(inner));
  return std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first == a.end();
}

absl::Status DeleteOwnFiles(const std::string& folder, const std::vector<RunFolder::Input>& inputs) {
  ASSIGN_OR_RETURN(const std::vector<fs::path> own, OwnFiles(folder));
  for (const fs::path& file : own) {
    for (const RunFolder::Input& input : inputs) {
      if (input.path.empty()) continue;
      ASSIGN_OR_RETURN(const bool contains, Contains(file, LocalPath(input.path)));
      if (!contains) continue;
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

absl::StatusOr<RunFolder> RunFolder::Lock(const std::string& path) {
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
  return folder;
}

absl::StatusOr<bool> RunFolder::HoldsRun(const std::string& path) {
  return Exists(absl::StrCat(path, "/", kStateFile));
}

absl::StatusOr<RunFolder> RunFolder::Reopen(const std::string& path) {
  ASSIGN_OR_RETURN(const bool holds_run, HoldsRun(path));
  if (!holds_run) {
    return absl::NotFoundError(absl::StrCat(path, ": holds no run to resume; leave --resume out to start one"));
  }
  return Lock(path);
}

absl::StatusOr<RunFolder> RunFolder::Open(const std::string& path, bool overwrite, const std::vector<Input>& inputs) {
  RETURN_IF_ERROR(MakeFolder(path));
  ASSIGN_OR_RETURN(RunFolder folder, Lock(path));
  ASSIGN_OR_RETURN(const bool holds_run, HoldsRun(path));
  if (!holds_run) return folder;
  if (!overwrite) {
    return absl::AlreadyExistsError(absl::StrCat(path,
                                                 ": holds an earlier run; choose another output, go on with that run "
                                                 "with --resume, or delete it with --overwrite"));
  }
  RETURN_IF_ERROR(DeleteOwnFiles(path, inputs));
  return folder;
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace polystill::coordinator
