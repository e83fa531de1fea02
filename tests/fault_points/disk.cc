#include "tests/fault_points/disk.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <regex>
#include <set>
#include <utility>

#include "runtime/fault_point.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;

std::string ContentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What would be found after a power cut: of each file and folder, by inode, as it was synced last.
class SyncedState {
 public:
  // All that is there counts as synced.
  void TakeAll(const std::string& root) {
    Take(root);
    for (const auto& entry : fs::recursive_directory_iterator(root)) Take(entry.path());
  }

  void Take(const std::string& path) {
    const ino_t inode = InodeOf(path);
    // Held open, so that no other file is given its number.
    if (held_.insert(inode).second) ::syscall(SYS_openat, AT_FDCWD, path.c_str(), O_PATH | O_CLOEXEC);
    if (!fs::is_directory(path)) {
      contents_[inode] = ContentOf(path);
      return;
    }
    Names names;
    for (const auto& entry : fs::directory_iterator(path)) {
      names[entry.path().filename()] = {InodeOf(entry.path()), entry.is_directory()};
    }
    folders_[inode] = std::move(names);
  }

  // Names and contents as synced.
  void Write(ino_t folder, const std::string& to) const {
    fs::create_directories(to);
    const auto names = folders_.find(folder);
    if (names == folders_.end()) return;
    for (const auto& [name, entry] : names->second) {
      const std::string path = to + "/" + name;
      if (entry.is_folder) {
        Write(entry.inode, path);
      } else {
        WriteContent(entry.inode, path);
      }
    }
  }

  // Names as they are in `from`, contents as synced.
  void WriteContents(const std::string& from, const std::string& to) const {
    fs::create_directories(to);
    for (const auto& entry : fs::recursive_directory_iterator(from)) {
      const std::string path = to + "/" + fs::relative(entry.path(), from).string();
      if (entry.is_directory()) {
        fs::create_directories(path);
      } else {
        WriteContent(InodeOf(entry.path()), path);
      }
    }
  }

  static ino_t InodeOf(const std::string& path) {
    struct stat info = {};
    ::lstat(path.c_str(), &info);
    return info.st_ino;
  }

 private:
  struct Entry {
    ino_t inode = 0;
    bool is_folder = false;
  };
  using Names = std::map<std::string, Entry>;

  void WriteContent(ino_t inode, const std::string& path) const {
    const auto content = contents_.find(inode);
    std::ofstream(path, std::ios::binary) << (content == contents_.end() ? "" : content->second);
  }

  std::map<ino_t, std::string> contents_;
  std::map<ino_t, Names> folders_;
  std::set<ino_t> held_;
};

std::atomic<bool> armed = false;
// This thread looks at the disk itself: its calls are none of the writer's. Other threads wait for the mutex.
thread_local bool looks = false;

struct Look {
  Look() { looks = true; }
  ~Look() { looks = false; }
};

struct Disk {
  std::recursive_mutex mutex;
  Plan plan;
  std::function<void(const Point&)> reached;
  int64_t next = 0;
  bool full = false;
  SyncedState synced;
  bool changed = true;  // since the last image

  bool CutsPower() const { return plan.fault == Fault::kPowerCut || plan.fault == Fault::kPowerCutNamesStay; }
  bool IsNext() const { return !CutsPower() && plan.fault != Fault::kCount && next == plan.at; }

  void SaveImage() {
    if (!changed) return;
    const Look look;
    changed = false;
    const std::string image = plan.images + "/" + std::to_string(next);
    if (plan.fault == Fault::kPowerCut) {
      synced.Write(SyncedState::InodeOf(plan.root), image);
    } else {
      synced.WriteContents(plan.root, image);
    }
  }

  // The error with which the call fails that is about to be made; 0 for none.
  int Reach(const Point& point) {
    if (CutsPower() && next % plan.every == 0) SaveImage();
    const bool now = IsNext();
    ++next;
    reached(point);
    if (now && plan.fault == Fault::kKill) ::kill(::getpid(), SIGKILL);
    if (now && plan.fault == Fault::kDiskFull) full = true;
    if (now && plan.fault == Fault::kIoError && point.can_fail) return EIO;
    // Names may change now; what was synced changes in Sync alone.
    changed |= plan.fault == Fault::kPowerCutNamesStay;
    return full && point.needs_space ? ENOSPC : 0;
  }
};

// Never destroyed: threads may write until the process ends.
Disk& TheDisk() {
  static Disk& disk = *new Disk;
  return disk;
}

bool Watches(const std::string& path) {
  const std::string& root = TheDisk().plan.root;
  return path.size() > root.size() && path.starts_with(root) && path[root.size()] == '/';
}

// Nothing while no plan is armed, or for what is elsewhere.
std::string WatchedPath(int file) {
  if (!armed || looks) return "";
  char path[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(file);
  const ssize_t size = ::readlink(link.c_str(), path, sizeof(path));
  const std::string found(path, size < 0 ? 0 : static_cast<size_t>(size));
  return Watches(found) || found == TheDisk().plan.root ? found : "";
}

std::string WatchedPath(const char* path) {
  if (!armed || looks || path == nullptr) return "";
  return Watches(path) ? path : "";
}

Point CallOf(const char* call, const std::string& path, bool needs_space) {
  return {std::string(call) + " " + PlainName(TheDisk().plan.root, path), true, needs_space};
}

// A call other than write: makes it unless it is to fail.
template <typename Call>
int Make(const char* name, const std::string& path, bool needs_space, const Call& call) {
  if (path.empty()) return call();
  std::lock_guard lock(TheDisk().mutex);
  const int error = TheDisk().Reach(CallOf(name, path, needs_space));
  if (error == 0) return call();
  errno = error;
  return -1;
}

// The same for a call that does not fail here.
template <typename Call>
int Pass(const char* name, const std::string& path, const Call& call) {
  if (path.empty()) return call();
  std::lock_guard lock(TheDisk().mutex);
  (void)TheDisk().Reach({CallOf(name, path, false).name});
  return call();
}

// `call(size)` writes that many bytes.
template <typename Call>
ssize_t Write(int file, size_t size, const Call& call) {
  const std::string path = WatchedPath(file);
  if (path.empty()) return call(size);
  std::lock_guard lock(TheDisk().mutex);
  Disk& disk = TheDisk();
  if (const int error = disk.Reach(CallOf("write", path, true)); error != 0) {
    errno = error;
    return -1;
  }
  if (size < 2) return call(size);
  const bool halved = disk.IsNext();
  const ssize_t half = halved ? call(size / 2) : 0;
  (void)disk.Reach(CallOf("half of write", path, true));  // this call fails no more
  return halved ? half : call(size);
}

int Sync(const char* name, int file) {
  const std::string path = WatchedPath(file);
  return Make(name, path, false, [&] {
    Disk& disk = TheDisk();
    if (!path.empty() && armed && disk.CutsPower()) {
      const Look look;
      const std::string link = "/proc/self/fd/" + std::to_string(file);
      disk.synced.Take(fs::exists(path) ? path : link);
      disk.changed = true;
    }
    return 0;
  });
}

int Open(int folder, const char* path, int flags, mode_t mode) {
  const std::string watched = WatchedPath(path);
  const auto open = [&] { return static_cast<int>(::syscall(SYS_openat, folder, path, flags, mode)); };
  const bool makes = (flags & O_CREAT) != 0 && !watched.empty() && ::access(path, F_OK) != 0;
  const bool cuts = (flags & O_TRUNC) != 0;
  return makes || cuts ? Make(makes ? "create" : "truncate", watched, makes, open) : open();
}

}  // namespace

void Arm(const Plan& plan, std::function<void(const Point&)> reached) {
  Disk& disk = TheDisk();
  disk.plan = plan;
  disk.reached = std::move(reached);
  if (disk.CutsPower()) disk.synced.TakeAll(plan.root);
  armed = true;
}

void Disarm() {
  std::lock_guard lock(TheDisk().mutex);
  if (TheDisk().CutsPower()) TheDisk().SaveImage();
  armed = false;
}

std::string PlainName(const std::string& root, const std::string& path) {
  static const std::regex kProcess("tmp-([A-Za-z0-9.-]+-)?[0-9]+"), kNumber("[0-9]{3,}");
  const std::string name = path.starts_with(root) ? path.substr(std::min(path.size(), root.size() + 1)) : path;
  return std::regex_replace(std::regex_replace(name, kProcess, "tmp-N"), kNumber, "N");
}

}  // namespace polystill::fault_points

namespace polystill {

void ReachFaultPoint(const char* name) {
  if (!fault_points::armed) return;
  std::lock_guard lock(fault_points::TheDisk().mutex);
  (void)fault_points::TheDisk().Reach({name});
}

}  // namespace polystill

// In the C library's place.
using polystill::fault_points::Make;
using polystill::fault_points::WatchedPath;

extern "C" {

ssize_t write(int file, const void* data, size_t size) {
  return polystill::fault_points::Write(file, size,
                                        [=](size_t part) { return ::syscall(SYS_write, file, data, part); });
}

ssize_t pwrite(int file, const void* data, size_t size, off_t at) {
  return polystill::fault_points::Write(file, size,
                                        [=](size_t part) { return ::syscall(SYS_pwrite64, file, data, part, at); });
}

ssize_t pwrite64(int file, const void* data, size_t size, off64_t at) { return pwrite(file, data, size, at); }

ssize_t writev(int file, const iovec* parts, int count) {
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  return polystill::fault_points::Write(file, size, [=](size_t part) -> ssize_t {
    if (part == size) return ::syscall(SYS_writev, file, parts, count);
    return ::syscall(SYS_write, file, parts[0].iov_base, std::min(part, parts[0].iov_len));
  });
}

int fsync(int file) { return polystill::fault_points::Sync("fsync", file); }
int fdatasync(int file) { return polystill::fault_points::Sync("fdatasync", file); }

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return polystill::fault_points::Open(AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return polystill::fault_points::Open(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int rename(const char* from, const char* to) {
  return Make("rename to", WatchedPath(to), false,
              [=] { return static_cast<int>(::syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)); });
}

int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) noexcept {
  return Make("exchange", WatchedPath(to), false,
              [=] { return static_cast<int>(::syscall(SYS_renameat2, from_folder, from, to_folder, to, flags)); });
}

int mkdir(const char* path, mode_t mode) noexcept {
  return Make("make folder", WatchedPath(path), true,
              [=] { return static_cast<int>(::syscall(SYS_mkdirat, AT_FDCWD, path, mode)); });
}

int ftruncate(int file, off_t size) noexcept {
  return Make("truncate", WatchedPath(file), false,
              [=] { return static_cast<int>(::syscall(SYS_ftruncate, file, size)); });
}

int ftruncate64(int file, off64_t size) noexcept { return ftruncate(file, size); }

int unlink(const char* path) noexcept {
  return polystill::fault_points::Pass("unlink", WatchedPath(path),
                                       [=] { return static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, 0)); });
}

int remove(const char* path) noexcept {
  if (unlink(path) == 0) return 0;
  return errno == EISDIR ? static_cast<int>(::syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)) : -1;
}

int unlinkat(int folder, const char* name, int flags) noexcept {
  return polystill::fault_points::Pass("unlink", WatchedPath(folder),
                                       [=] { return static_cast<int>(::syscall(SYS_unlinkat, folder, name, flags)); });
}
}
