#include "soft_labels/store_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "checkpoint/manifest.h"
#include "runtime/fault_point.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/store_manifest.h"

namespace polystill::soft_labels {
namespace {

namespace fs = std::filesystem;

// Of sha256sum: between a digest and a name.
constexpr char kGap[] = "  ";
// Of the servers that a job starts.
constexpr char kLogFolder[] = "logs";

std::string LineOf(const v1::FileDigest& part) {
  return absl::StrCat(part.sha256(), kGap, kStoreLabelsFolder, "/", part.name(), "\n");
}

// The digest of the file that lies there; without a name when it cannot be read.
v1::FileDigest DigestOnDisk(const std::string& path) {
  v1::FileDigest digest;
  std::error_code error;
  digest.set_bytes(static_cast<int64_t>(fs::file_size(path, error)));
  const auto sha256 = Sha256File(path);
  if (error || !sha256.ok()) return {};
  digest.set_sha256(*sha256);
  digest.set_name(fs::path(path).filename().string());
  return digest;
}

// The parts of whole lines.
std::vector<v1::FileDigest> ParseFinished(const std::string& text) {
  std::vector<v1::FileDigest> parts;
  const size_t whole = text.rfind('\n');
  if (whole == std::string::npos) return parts;
  for (const absl::string_view line : absl::StrSplit(text.substr(0, whole), '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(kGap, 1));
    const std::string prefix = absl::StrCat(kStoreLabelsFolder, "/");
    if (words.size() != 2 || !absl::StartsWith(words[1], prefix)) continue;
    v1::FileDigest& part = parts.emplace_back();
    part.set_sha256(words[0]);
    part.set_name(words[1].substr(prefix.size()));
  }
  return parts;
}

// Removes a file that may not be there.
absl::Status Remove(const std::string& path) {
  std::error_code error;
  fs::remove(path, error);
  return error ? FileError(error.value(), path, "remove") : absl::OkStatus();
}

// Of a file beside the labels that a writer had begun (WriteFileAtomically).
bool IsTemporary(const std::string& name) {
  const auto begins = [&](const char* file) { return absl::StartsWith(name, absl::StrCat(file, ".tmp-")); };
  return begins(kStoreManifestFile) || begins(kStoreJobFile) || begins(kStoreFinishedFile) || begins(kStoreHeadFile);
}

// What writers that died left behind.
absl::Status RemoveTemporaries(const std::string& folder) {
  const std::string labels = absl::StrCat(folder, "/", kStoreLabelsFolder);
  for (const std::string& within : {folder, labels}) {
    std::error_code error;
    for (fs::directory_iterator entry(within, error), end; !error && entry != end; entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      const bool left = within == labels ? absl::StartsWith(name, ".") : IsTemporary(name);
      if (left) RETURN_IF_ERROR(Remove(entry->path().string()));
    }
    if (error) return FileError(error.value(), within, "read");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStoreFolder(const std::string& folder) {
  const auto in_folder = [&](const char* name) { return absl::StrCat(folder, "/", name); };
  std::error_code error;
  if (!fs::exists(folder, error)) return absl::OkStatus();
  if (!fs::is_directory(folder, error)) {
    return absl::AlreadyExistsError(absl::StrCat(folder, ": is a file; choose another --out"));
  }
  if (fs::exists(in_folder(kStoreManifestFile), error) || fs::exists(in_folder(kStoreJobFile), error)) {
    return absl::OkStatus();
  }
  // What a job leaves that ended before it had begun.
  std::set<std::string> known = {kLogFolder};
  if (fs::is_empty(in_folder(kStoreLabelsFolder), error) && !error) known.insert(kStoreLabelsFolder);
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (known.contains(name) || IsTemporary(name)) continue;
    return absl::AlreadyExistsError(
        absl::StrCat(folder, ": holds something else, ", name, "; choose another --out, or delete it"));
  }
  return error ? FileError(error.value(), folder, "read") : absl::OkStatus();
}

StoreFolder::~StoreFolder() {
  if (lock_ >= 0) ::close(lock_);
}

std::string StoreFolder::PathOfPart(const std::string& name) const {
  return absl::StrCat(folder_, "/", kStoreLabelsFolder, "/", name);
}

absl::Status StoreFolder::Lock() {
  lock_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) return FileError(errno, folder_, "open");
  if (::flock(lock_, LOCK_EX | LOCK_NB) == 0) return absl::OkStatus();
  if (errno != EWOULDBLOCK) return FileError(errno, folder_, "lock");
  return absl::AbortedError(absl::StrCat(folder_, ": another `polystill label` writes to it; wait for it, or end it"));
}

absl::StatusOr<std::unique_ptr<StoreFolder>> StoreFolder::Open(const std::string& folder,
                                                               const v1::LabelStoreManifest& job) {
  std::unique_ptr<StoreFolder> opened(new StoreFolder(folder));
  RETURN_IF_ERROR(MakeFolder(absl::StrCat(folder, "/", kStoreLabelsFolder)));
  RETURN_IF_ERROR(opened->Lock());
  RETURN_IF_ERROR(CheckStoreFolder(folder));
  RETURN_IF_ERROR(RemoveTemporaries(folder));
  const std::string sealed = absl::StrCat(folder, "/", kStoreManifestFile);
  const std::string begun = absl::StrCat(folder, "/", kStoreJobFile);
  if (!fs::exists(sealed) && !fs::exists(begun)) {
    RETURN_IF_ERROR(opened->Begin(job));
    return opened;
  }
  ASSIGN_OR_RETURN(const v1::LabelStoreManifest began, ReadStoreManifest(fs::exists(sealed) ? sealed : begun));
  RETURN_IF_ERROR(Annotate(CheckSameLabels(began, job), folder));
  RETURN_IF_ERROR(Annotate(opened->TakeUp(began), folder));
  return opened;
}

absl::Status StoreFolder::Begin(const v1::LabelStoreManifest& job) {
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder_, "/", kStoreJobFile), FormatStoreManifest(job)));
  // So that its name is on the disk: NoteFinished syncs the lines alone.
  return RewriteFinished();
}

absl::Status StoreFolder::TakeUp(const v1::LabelStoreManifest& began) {
  const std::string finished = absl::StrCat(folder_, "/", kStoreFinishedFile);
  std::vector<v1::FileDigest> parts;
  for (const v1::LabelStoreManifest::Part& part : began.parts()) parts.push_back(part.file());
  const bool was_sealed = began.parts_size() > 0;
  if (!was_sealed && fs::exists(finished)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(finished));
    parts = ParseFinished(text);
  }
  for (const v1::FileDigest& part : parts) {
    const v1::FileDigest there = DigestOnDisk(PathOfPart(part.name()));
    if (there.sha256() == part.sha256()) finished_[part.name()] = there;
  }
  const std::string head = absl::StrCat(folder_, "/", kStoreHeadFile);
  const bool head_is_whole = !began.has_head() || DigestOnDisk(head).sha256() == began.head().sha256();
  sealed_ = was_sealed && finished_.size() == parts.size() && head_is_whole;
  if (sealed_) return RemoveJob();
  RETURN_IF_ERROR(RewriteFinished());
  if (!was_sealed) return absl::OkStatus();
  // A part of a store that was whole, or its head, is gone or torn: what is left is a job again.
  v1::LabelStoreManifest job = began;
  job.clear_parts();
  job.clear_head();
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder_, "/", kStoreJobFile), FormatStoreManifest(job)));
  FAULT_POINT("job written again");
  RETURN_IF_ERROR(Remove(absl::StrCat(folder_, "/", kStoreManifestFile)));
  return SyncPath(folder_);  // or a power cut brings back the manifest of what is no longer whole
}

// So that the lines of parts that are not whole go, and a torn last line.
absl::Status StoreFolder::RewriteFinished() const {
  std::string text;
  for (const auto& [name, part] : finished_) text += LineOf(part);
  return WriteFileAtomically(absl::StrCat(folder_, "/", kStoreFinishedFile), text);
}

v1::FileDigest StoreFolder::FinishedPart(const std::string& name) const {
  const auto found = finished_.find(name);
  return found == finished_.end() ? v1::FileDigest() : found->second;
}

absl::Status StoreFolder::NoteFinished(const v1::FileDigest& part) {
  finished_[part.name()] = part;
  const std::string path = absl::StrCat(folder_, "/", kStoreFinishedFile);
  const std::string line = LineOf(part);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return FileError(errno, path, "open");
  const ssize_t written = ::write(file, line.data(), line.size());
  const int error = written < 0 ? errno : written < static_cast<ssize_t>(line.size()) ? ENOSPC : 0;
  FAULT_POINT("line of a part written");
  const int sync_error = error == 0 && ::fsync(file) != 0 ? errno : error;
  ::close(file);
  return sync_error == 0 ? absl::OkStatus() : FileError(sync_error, path, "write");
}

absl::Status StoreFolder::Seal(const v1::LabelStoreManifest& manifest) {
  RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder_, "/", kStoreManifestFile), FormatStoreManifest(manifest)));
  FAULT_POINT("store sealed");
  sealed_ = true;
  return RemoveJob();
}

absl::Status StoreFolder::RemoveJob() const {
  RETURN_IF_ERROR(Remove(absl::StrCat(folder_, "/", kStoreFinishedFile)));
  FAULT_POINT("list of parts removed");
  return Remove(absl::StrCat(folder_, "/", kStoreJobFile));
}

}  // namespace polystill::soft_labels
