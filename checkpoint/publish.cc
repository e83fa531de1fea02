#include "checkpoint/publish.h"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::checkpoint {
namespace {

namespace fs = std::filesystem;

// "a/b" and "a/b/" are the same folder.
fs::path Normal(const std::string& folder) {
  const fs::path path = fs::path(folder).lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

// Puts `temporary` in the place of `folder`; what was there ends at `temporary`'s name.
absl::Status Exchange(const std::string& temporary, const std::string& folder) {
  if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) {
    FAULT_POINT("folders exchanged");
    return SyncPath(fs::path(folder).parent_path().string());
  }
  if (errno != EINVAL && errno != ENOSYS) return FileError(errno, folder, "replace");
  // A file system without exchange: for a moment neither is there.
  const std::string old = temporary + ".old";
  RETURN_IF_ERROR(RenameDurably(folder, old));
  const absl::Status placed = RenameDurably(temporary, folder);
  if (!placed.ok()) {
    std::error_code ignored;
    fs::rename(old, folder, ignored);
    return placed;
  }
  return RenameDurably(old, temporary);
}

absl::Status FillAndPlace(const std::string& temporary, const std::string& folder,
                          const std::function<absl::Status(const std::string&)>& fill) {
  RETURN_IF_ERROR(MakeFolder(temporary));
  RETURN_IF_ERROR(fill(temporary));
  FAULT_POINT("folder filled");
  RETURN_IF_ERROR(SyncPath(temporary));
  FAULT_POINT("filled folder synced");
  std::error_code error;
  const bool exists = fs::exists(folder, error);
  if (error) return FileError(error.value(), folder, "look at");
  return exists ? Exchange(temporary, folder) : RenameDurably(temporary, folder);
}

}  // namespace

absl::Status PublishFolder(const std::string& folder, const std::function<absl::Status(const std::string&)>& fill) {
  std::error_code error;
  const fs::path target = fs::absolute(Normal(folder), error);
  if (error) return FileError(error.value(), folder, "resolve");
  const std::string temporary =
      TemporaryOf((target.parent_path() / absl::StrCat(".", target.filename().string())).string());
  std::error_code ignored;
  fs::remove_all(temporary, ignored);  // of a dead process that had the same id
  const absl::Status status = FillAndPlace(temporary, target.string(), fill);
  FAULT_POINT("folder in its place");
  fs::remove_all(temporary, ignored);
  return status;
}

}  // namespace polystill::checkpoint
