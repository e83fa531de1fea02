#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace polystill::checkpoint {

// Where the checkpoint of a step lies that a generation's first rank wrote: FOLDER/step-000000120-gen-3. No two
// generations write the same one, so that a worker that was taken for dead spoils nothing.
std::string CheckpointPath(const std::string& folder, int64_t step, int64_t generation);

struct CheckpointName {
  int64_t step = 0;
  int64_t generation = 0;
  bool operator==(const CheckpointName&) const = default;
};
// From the last part of such a path, or from the temporary name (checkpoint/publish.h) under which it is being written;
// nothing when it is neither.
std::optional<CheckpointName> ParseCheckpointName(std::string_view name);

}  // namespace polystill::checkpoint
