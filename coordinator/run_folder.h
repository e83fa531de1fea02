#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::coordinator {

// Names in a run's folder.
inline constexpr char kLockFile[] = "lock";
inline constexpr char kStateFile[] = "coordinator.sqlite";
inline constexpr char kSpecFile[] = "run.yaml";
inline constexpr char kReportFile[] = "report.json";
// While it runs: where its coordinator answers (coordinator/address_file.h). How far it is, or how it ended (a
// RunStatus as JSON). Folder of TensorBoard's event files.
inline constexpr char kAddressFile[] = "coordinator.address";
inline constexpr char kStatusFile[] = "status.json";
inline constexpr char kEventsFolder[] = "events";
inline constexpr char kHtmlReportFile[] = "report.html";
inline constexpr char kLatencyFile[] = "latency.json";
inline constexpr char kLabelCacheFolder[] = "label_cache";

// The folder of one run, locked for as long as this object lives (flock on <folder>/lock: it goes with the process).
class RunFolder {
 public:
  // A file or folder that the run reads, and the key of the run file that names it.
  struct Input {
    std::string key;
    std::string path;
  };

  // Whether there is a run to go on with.
  static absl::StatusOr<bool> HoldsRun(const std::string& path);
  // Makes the folder, locks it. ALREADY_EXISTS when another process holds the lock, or when the folder holds an earlier
  // run and `overwrite` is false. With `overwrite` the earlier run's own files are deleted, except logs; what else lies
  // there stays. INVALID_ARGUMENT when that would delete one of `inputs`.
  static absl::StatusOr<RunFolder> Open(const std::string& path, bool overwrite, const std::vector<Input>& inputs);
  // Locks the folder of an earlier run, to go on with it. NOT_FOUND when it holds none; ALREADY_EXISTS when another
  // process holds the lock.
  static absl::StatusOr<RunFolder> Reopen(const std::string& path);
  ~RunFolder();
  RunFolder(RunFolder&& other) noexcept : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}
  RunFolder& operator=(RunFolder&&) = delete;

  // The path of `name` in the folder.
  std::string PathOf(const std::string& name) const { return path_ + "/" + name; }

 private:
  static absl::StatusOr<RunFolder> Lock(const std::string& path);
  RunFolder(std::string path, int lock) : path_(std::move(path)), lock_(lock) {}

  std::string path_;
  int lock_;
};

}  // namespace polystill::coordinator
