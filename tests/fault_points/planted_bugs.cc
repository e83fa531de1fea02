#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/sqlite.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "tests/fault_points/subjects.h"

namespace polystill::fault_points {
namespace {

namespace fs = std::filesystem;
using Done = std::function<void()>;

constexpr char kFirst[] = "the first content";
constexpr char kSecond[] = "the second content, which is longer";

// A file that is written twice, by `write`.
class BadFile : public Subject {
 public:
  using WriteOne = std::function<absl::Status(const std::string& path, const std::string& content)>;
  BadFile(std::string name, WriteOne write) : name_(std::move(name)), write_(std::move(write)) {}
  std::string name() const override { return name_; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const char* content : {kFirst, kSecond}) {
      RETURN_IF_ERROR(write_(folder + "/file", content));
      done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override { return ReadFile(folder + "/file").value_or("none"); }

 private:
  const std::string name_;
  const WriteOne write_;
};

struct Habits {
  bool syncs = true;
  bool closes = true;
  bool removes = true;
  bool tells = true;
};

absl::Status WriteBadly(const std::string& path, const std::string& content, Habits habits = {}) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return FileError(errno, path, "create");
  const ssize_t written = ::write(file, content.data(), content.size());
  absl::Status status;
  if (written < 0) status = FileError(errno, path, "write");
  if (written >= 0 && written < static_cast<ssize_t>(content.size())) status = FileError(ENOSPC, path, "write");
  if (!habits.tells) status = absl::OkStatus();
  if (status.ok() && habits.syncs && ::fsync(file) != 0) status = FileError(errno, path, "sync");
  if (status.ok() || habits.closes) ::close(file);
  if (!status.ok() && habits.removes) ::unlink(path.c_str());
  return status;
}

// As WriteFileAtomically, but for what `habits` leave out.
absl::Status WriteAndRename(const std::string& path, const std::string& content, Habits habits) {
  const std::string temporary = path + ".tmp-1";
  RETURN_IF_ERROR(WriteBadly(temporary, content, habits));
  absl::Status status = RenameDurably(temporary, path);
  if (!status.ok()) ::unlink(temporary.c_str());
  return status;
}

BadFile::WriteOne With(Habits habits) {
  return
      [habits](const std::string& path, const std::string& content) { return WriteAndRename(path, content, habits); };
}

// Nobody's names: the content of a folder, its manifest first and in its final place.
absl::Status ManifestFirst(const std::string& folder, const std::string& content) {
  RETURN_IF_ERROR(WriteFileAtomically(folder + "/manifest", content));
  return WriteFileAtomically(folder + "/data", "data of " + content);
}

class BadFolder : public Subject {
 public:
  std::string name() const override { return "manifest_before_data"; }
  absl::Status Write(const std::string& folder, const Done& done) const override {
    for (const char* content : {kFirst, kSecond}) {
      RETURN_IF_ERROR(ManifestFirst(folder, content));
      done();
    }
    return absl::OkStatus();
  }
  std::string Read(const std::string& folder) const override {
    if (!fs::exists(folder + "/manifest")) return "none";
    return ReadFile(folder + "/manifest").value_or("none") + ", " + ReadFile(folder + "/data").value_or("no data");
  }
};

// A SQLite file with a row a write, opened with these pragmas; `early`: called durable before it is.
class BadDatabase : public Subject {
 public:
  BadDatabase(std::string name, std::vector<std::string> pragmas, bool early)
      : name_(std::move(name)), pragmas_(std::move(pragmas)), early_(early) {}
  std::string name() const override { return name_; }

  absl::Status Write(const std::string& folder, const Done& done) const override {
    coordinator::Sqlite database(folder + "/database");
    RETURN_IF_ERROR(database.Open());
    for (const std::string& pragma : pragmas_) RETURN_IF_ERROR(database.Execute("PRAGMA " + pragma));
    RETURN_IF_ERROR(database.Execute("CREATE TABLE IF NOT EXISTS facts (name INTEGER PRIMARY KEY, value TEXT)"));
    for (int64_t i = 0; i < 3; ++i) {
      RETURN_IF_ERROR(database.Execute("BEGIN IMMEDIATE"));
      RETURN_IF_ERROR(database.Execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", {i, std::string(9000, 'x')}));
      if (early_) done();
      RETURN_IF_ERROR(database.Execute("COMMIT"));
      if (!early_) done();
    }
    return absl::OkStatus();
  }

  std::string Read(const std::string& folder) const override {
    coordinator::Sqlite database(folder + "/database");
    if (!fs::exists(folder + "/database") || !database.Open().ok()) return "0";
    const auto rows = database.Query("SELECT name FROM facts");
    if (rows.ok()) return absl::StrCat(rows->size());
    return absl::IsInternal(rows.status()) ? "0" : rows.status().ToString();  // no table yet
  }

 private:
  const std::string name_;
  const std::vector<std::string> pragmas_;
  const bool early_;
};

absl::Status RemoveFirst(const std::string& path, const std::string& content) {
  RETURN_IF_ERROR(WriteFileAtomically(path + ".new", content));
  ::unlink(path.c_str());
  return RenameDurably(path + ".new", path);
}

absl::Status ForgetFolder(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".tmp-1";
  RETURN_IF_ERROR(WriteBadly(temporary, content));
  if (::rename(temporary.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const absl::Status status = FileError(errno, path, "rename to");
  ::unlink(temporary.c_str());
  return status;
}

// Goes on after a file of its own only when that is not there.
absl::Status StumbleOverOwn(const std::string& path, const std::string& content) {
  const std::string temporary = path + ".lock";
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) return FileError(errno, temporary, "create");
  ::close(file);
  absl::Status status = WriteFileAtomically(path, content);
  ::unlink(temporary.c_str());
  return status;
}

absl::Status BlameNobody(const std::string& path, const std::string& content) {
  return WriteFileAtomically(path, content).ok() ? absl::OkStatus() : absl::ResourceExhaustedError("disk full");
}

}  // namespace

std::vector<Planted> PlantedBugs() {
  const auto file = [](const char* name, BadFile::WriteOne write) {
    return std::make_shared<BadFile>(name, std::move(write));
  };
  const auto database = [](const char* name, std::vector<std::string> pragmas, bool early) {
    return std::make_shared<BadDatabase>(name, std::move(pragmas), early);
  };
  return {
      {file("no_rename", [](const auto& path, const auto& content) { return WriteBadly(path, content); }),
       {"SIGKILL at point", "(half of write file)", "left 'the secon"}},
      {file("no_sync", With({.syncs = false})), {"power cut at point", "left ''"}},
      {file("no_sync_of_the_folder", ForgetFolder), {"power cut at point", "(end), 2 writes done"}},
      {file("removed_before_replaced", RemoveFirst), {"SIGKILL at point", "left 'none', not 'the first content'"}},
      {file("no_word_of_the_error", With({.tells = false})), {"full disk at point", "returned OK and left"}},
      {file("no_file_in_the_error", BlameNobody), {"I/O error at point", "the error names no file"}},
      {file("no_file_removed", With({.removes = false})), {"full disk at point", "leaves file.tmp-N behind"}},
      {file("no_file_closed", With({.closes = false})), {"full disk at point", "leaves 1 descriptors open"}},
      {file("stumbles_over_its_own", StumbleOverOwn), {"SIGKILL at point", "cannot go on"}},
      {std::make_shared<BadFolder>(), {"SIGKILL at point", "left 'the first content, no data'"}},
      {database("done_before_commit", {"journal_mode=WAL", "synchronous=FULL"}, true), {"SIGKILL at point", "left"}},
      {database("commit_not_synced", {"journal_mode=WAL", "synchronous=NORMAL"}, false),
       {"power cut at point", "3 writes done"}},
      {database("no_journal", {"journal_mode=OFF", "synchronous=FULL"}, false), {"SIGKILL at point", "left"}},
  };
}

}  // namespace polystill::fault_points
