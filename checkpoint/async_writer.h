#pragma once

#include <functional>
#include <future>
#include <string>

#include "absl/status/status.h"
#include "checkpoint/checkpoint.h"

namespace polystill::checkpoint {

// Writes checkpoints beside the training, which waits for the copy of the tensors alone, and for an earlier write that
// is still under way: there is never more than one. Not thread-safe.
class AsyncWriter {
 public:
  // Called from another thread once the checkpoint is whole and on the disk.
  using OnWritten = std::function<void(const std::string& path)>;

  explicit AsyncWriter(std::string folder) : folder_(std::move(folder)) {}
  // Waits for the write under way.
  ~AsyncWriter();

  // Copies the tensors of `state` and begins to write. The status is that of the write before, as Flush gives it.
  absl::Status Write(CheckpointState state, OnWritten on_written);
  // How the last write ended, if it has; OK while it goes on. Cheap enough for every step.
  absl::Status Poll();
  // Waits for the write under way. The errors of SaveCheckpoint.
  absl::Status Flush();

 private:
  const std::string folder_;
  std::future<absl::Status> pending_;
};

}  // namespace polystill::checkpoint
