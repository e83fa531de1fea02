#include "runtime/files.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/fault_point.h"
#include "runtime/status.h"

namespace polystill {
namespace {

namespace fs = std::filesystem;

// A file descriptor closed at the end of its scope.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::Status WriteAndSync(const std::string& path, std::string_view content) {
  Descriptor file{::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)};
  if (file.fd < 0) return FileError(errno, path, "create");
  FAULT_POINT("file created");
  while (!content.empty()) {
    const ssize_t written = ::write(file.fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FileError(errno, path, "write");
    content.remove_prefix(static_cast<size_t>(written));
  }
  FAULT_POINT("file written");
  if (::fsync(file.fd) != 0) return FileError(errno, path, "sync");
  FAULT_POINT("file synced");
  return absl::OkStatus();
}

}  // namespace

absl::Status FileError(int error_number, std::string_view path, std::string_view doing) {
  const std::string message =
      absl::StrCat(std::string(path), ": cannot ", std::string(doing), ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; free some space and start again"));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    default:
      return absl::InternalError(message);
  }
}

absl::Status SyncPath(const std::string& path) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return FileError(errno, path, "open");
  if (::fsync(file.fd) != 0) return FileError(errno, path, "sync");
  return absl::OkStatus();
}

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) return FileError(errno, to, "rename to");
  FAULT_POINT("renamed");
  RETURN_IF_ERROR(SyncPath(ParentOf(to)));
  FAULT_POINT("folder of the new name synced");
  return absl::OkStatus();
}

absl::Status MakeFolder(const std::string& path) {
  std::error_code error;
  std::vector<std::string> missing;
  for (fs::path folder = path; !folder.empty() && !fs::exists(folder, error); folder = folder.parent_path()) {
    missing.push_back(folder.string());
  }
  fs::create_directories(path, error);
  if (error) return FileError(error.value(), path, "make the folder");
  FAULT_POINT("folders made");
  // Or what is synced inside is lost with the folder's own name.
  for (const std::string& folder : missing) RETURN_IF_ERROR(SyncPath(ParentOf(folder)));
  FAULT_POINT("made folders synced");
  return absl::OkStatus();
}

std::string TemporaryOf(const std::string& path) {
  char host[HOST_NAME_MAX + 1] = {};
  if (::gethostname(host, sizeof(host) - 1) != 0 || host[0] == '\0') std::strcpy(host, "localhost");
  return absl::StrCat(path, ".tmp-", host, "-", ::getpid());
}

absl::Status WriteFileAtomically(const std::string& path, std::string_view content) {
  RETURN_IF_ERROR(MakeFolder(ParentOf(path)));
  const std::string temporary = TemporaryOf(path);
  absl::Status status = WriteAndSync(temporary, content);
  if (status.ok()) status = RenameDurably(temporary, path);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return FileError(errno, path, "open");
  struct stat info;
  if (::fstat(file.fd, &info) != 0) return FileError(errno, path, "read");
  if (S_ISDIR(info.st_mode)) return FileError(EISDIR, path, "read");
  if (info.st_size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, ": has ", info.st_size, " bytes, at most ", max_bytes, " are read"));
  }
  std::string content;
  content.resize(static_cast<size_t>(info.st_size));
  size_t filled = 0;
  while (filled < content.size()) {
    const ssize_t got = ::read(file.fd, content.data() + filled, content.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(errno, path, "read");
    if (got == 0) break;
    filled += static_cast<size_t>(got);
  }
  content.resize(filled);
  return content;
}

absl::StatusOr<std::string> ProgramFolder() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return FileError(error.value(), "/proc/self/exe", "read");
  return self.parent_path().string();
}

}  // namespace polystill
