#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace polystill::cuda {

// What libpolystill_cuda.so gives to the program of the same build that loads it. Functions throw c10::Error.
struct Library {
  // Number of GPUs, at least one; throws the reason why there is none.
  int (*count_devices)();
  // See MakeNccl in runtime/cuda/device.h.
  c10::intrusive_ptr<c10d::Backend> (*make_nccl)(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
                                                 std::chrono::milliseconds timeout);
};

// The file, in ../lib as seen from the programs, and its one symbol: a Library.
inline constexpr char kLibraryFile[] = "libpolystill_cuda.so";
inline constexpr char kLibrarySymbol[] = "polystill_cuda_library";

}  // namespace polystill::cuda
