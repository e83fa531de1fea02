// Made into libpolystill_cuda.so; nothing else in the tree includes a header of CUDA or NCCL.
#include "runtime/cuda/library.h"

#include <c10/cuda/CUDAFunctions.h>
#include <stdlib.h>

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

namespace polystill::cuda {
namespace {

int CountDevices() { return c10::cuda::device_count_ensure_non_zero(); }

// How c10d is told what it has no option for. A setting that the user has made stands.
void SetDefaults() {
  const std::pair<const char*, const char*> settings[] = {
      {"TORCH_NCCL_ASYNC_ERROR_HANDLING", "2"},  // a failure ends the communicator, not the process
      {"TORCH_NCCL_ENABLE_MONITORING", "0"},     // its thread asks the store, which may be gone, and ends the process
      {"TORCH_NCCL_DUMP_ON_TIMEOUT", "0"},
      {"TORCH_NCCL_PROPAGATE_ERROR", "0"},
  };
  for (const auto& [name, value] : settings) setenv(name, value, /*overwrite=*/0);
}

c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
                                           std::chrono::milliseconds timeout) {
  SetDefaults();
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  options->config.blocking = 0;  // so that it can be aborted at any time
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, world_size, options);
}

}  // namespace
}  // namespace polystill::cuda

extern "C" __attribute__((visibility("default")))
const polystill::cuda::Library polystill_cuda_library = {polystill::cuda::CountDevices, polystill::cuda::MakeNccl};
