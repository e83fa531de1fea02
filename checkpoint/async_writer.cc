#include "checkpoint/async_writer.h"

#include <ATen/ATen.h>

#include <chrono>
#include <utility>

#include "runtime/status.h"

namespace polystill::checkpoint {
namespace {

void CopyTensors(NamedTensors* tensors) {
  for (auto& [name, tensor] : *tensors) tensor = tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

AsyncWriter::~AsyncWriter() {
  if (pending_.valid()) pending_.wait();
}

absl::Status AsyncWriter::Write(CheckpointState state, OnWritten on_written) {
  RETURN_IF_ERROR(Flush());
  for (NamedTensors* tensors : {&state.model, &state.optimizer, &state.best, &state.projections}) CopyTensors(tensors);
  pending_ = std::async(std::launch::async,
                        [this, state = std::move(state), on_written = std::move(on_written)]() -> absl::Status {
                          RETURN_IF_ERROR(SaveCheckpoint(folder_, state).status());
                          on_written(CheckpointPath(folder_, state.step, state.generation));
                          return absl::OkStatus();
                        });
  return absl::OkStatus();
}

absl::Status AsyncWriter::Poll() {
  const bool ended = pending_.valid() && pending_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  return ended ? pending_.get() : absl::OkStatus();
}

absl::Status AsyncWriter::Flush() { return pending_.valid() ? pending_.get() : absl::OkStatus(); }

}  // namespace polystill::checkpoint
