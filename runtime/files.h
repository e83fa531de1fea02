#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill {

// `path` with ".tmp-", this host's name and the process's id at its end: a name beside it that no other process writes,
// on this machine or another that shares the file system. What a dead one has left there may be overwritten.
std::string TemporaryOf(const std::string& path);

// Writes a file so that a reader sees the old content or the whole new one: to a temporary name beside it, synced to
// the disk, renamed, the folder synced. Parent folders are made. RESOURCE_EXHAUSTED on a full disk; PERMISSION_DENIED,
// NOT_FOUND or INTERNAL otherwise (FileError); the message names the file, and the temporary file is gone.
absl::Status WriteFileAtomically(const std::string& path, std::string_view content);

// The content of a file of at most `max_bytes`. NOT_FOUND, RESOURCE_EXHAUSTED (larger), or those of FileError; names
// the file.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = int64_t{1} << 32);

// Makes a folder and its parents, on the disk when it returns; fine when it is there. The message names the folder.
absl::Status MakeFolder(const std::string& path);

// The folder of the running program, in which the others are too.
absl::StatusOr<std::string> ProgramFolder();

// Syncs a file or folder that was written by other means (e.g. a library) to the disk.
absl::Status SyncPath(const std::string& path);

// Renames a finished file or folder to its final name and syncs the parent folder.
absl::Status RenameDurably(const std::string& from, const std::string& to);

// Whether a path is a URI, `scheme://...`: whoever opens it knows its file system, the local one does not.
inline bool IsUri(std::string_view path) { return path.find("://") != std::string_view::npos; }

// The status for an errno of a call on `path`: ENOSPC and EDQUOT are RESOURCE_EXHAUSTED ("disk full").
absl::Status FileError(int error_number, std::string_view path, std::string_view doing);

}  // namespace polystill
