#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {

// A run file that was read and found right.
struct RunFile {
  // Resolved: every default is written out, also of `where`, `output`, and the teachers of the losses; paths are
  // absolute, so that the file written from it means the same wherever a process runs.
  v1::RunSpec spec;
  // Where each key stands, for messages of what is found wrong later.
  YamlLines lines;
  std::string path;
};

// Reads and validates a run file. `settings`: overrides "dotted.path=value". INVALID_ARGUMENT lists every mistake, one
// a line, with file, line and key; NOT_FOUND when there is no such file. Looks at the file system only to see whether
// the paths in it exist.
absl::StatusOr<RunFile> ReadRunFile(const std::string& path, const std::vector<std::string>& settings);

}  // namespace polystill::coordinator
