#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>

#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace polystill::cuda {

// The device of that kind; of the machine's GPUs number `gpu`. FAILED_PRECONDITION says why there is none: no
// libpolystill_cuda.so, no driver, fewer GPUs. Opening a GPU loads LibTorch's CUDA part, seconds and hundreds of MB.
absl::StatusOr<at::Device> OpenDevice(v1::Device device, int gpu);

// A tensor of the CPU on `device`: itself, or a copy that goes through pinned memory while the host goes on. The host's
// memory may be used again at once.
at::Tensor ToDevice(const at::Tensor& host, at::Device device);

// A tensor in the CPU's memory: itself, or a copy in pinned memory once all that it depends on has been computed.
at::Tensor ToHost(const at::Tensor& tensor);

// A stream of its own on a GPU.
c10::Stream NewStream(at::Device device);

// NCCL's collectives over GPUs, for c10d. Every rank calls it; the store must live until all have. After OpenDevice of
// a GPU. A collective that takes longer than `timeout`, or whose peer is gone, ends with an error; the process goes on.
// Throws c10::Error.
c10::intrusive_ptr<c10d::Backend> MakeNccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int world_size,
                                           std::chrono::milliseconds timeout);

}  // namespace polystill::cuda
