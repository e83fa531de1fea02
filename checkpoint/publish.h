#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace polystill::checkpoint {

// Makes a folder that appears whole or not at all: `fill(temporary)` writes the files into a new folder beside
// `folder`, which is then synced and renamed. A folder that is already there is replaced in one step and removed; on an
// error it stays, and the temporary one is gone. A process that dies on the way leaves a folder ".NAME.tmp-HOST-PID",
// which nobody reads.
absl::Status PublishFolder(const std::string& folder, const std::function<absl::Status(const std::string&)>& fill);

}  // namespace polystill::checkpoint
