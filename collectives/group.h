#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace c10d {
class ProcessGroup;
}

namespace polystill::collectives {

// The ranks of one generation, connected by Gloo, and by NCCL where the gradients are on GPUs. Every call is a
// collective: all ranks make the same calls in the same order, else they fail. Each fails with ABORTED, naming this
// rank and the peer's address where Gloo knows it, when a peer has died or does not answer within the timeout; then the
// group is of no use any more. Not thread-safe.
class Group {
 public:
  struct Options {
    int rank = 0;
    int world_size = 1;
    // The store, and the prefix of this generation's keys in it. Unused by a world of one.
    std::string store_host;
    int store_port = 0;
    std::string store_prefix;
    // Name or address of this machine at which the other ranks reach this one.
    std::string host = "127.0.0.1";
    // Where the gradients are. Those on a GPU are reduced by NCCL; everything else by Gloo. An open one (OpenDevice).
    at::Device device = at::kCPU;
    // For a peer to answer. A killed peer shows at once; this bounds the wait for one that hangs.
    std::chrono::milliseconds timeout{30'000};
  };

  // Waits for all ranks. INVALID_ARGUMENT when `host` is not this machine's. The process ignores SIGPIPE from then on.
  static absl::StatusOr<std::unique_ptr<Group>> Create(const Options& options);
  ~Group();

  int rank() const;
  std::chrono::milliseconds timeout() const;
  int world_size() const;

  // Adds up `tensor` (contiguous, of the same shape everywhere) over the ranks, in place.
  absl::Status AllReduceSum(at::Tensor tensor) const;
  // The same for the largest of each element.
  absl::Status AllReduceMax(at::Tensor tensor) const;

  // What each rank gave, by rank. Short strings of any length.
  absl::StatusOr<std::vector<std::string>> AllGather(std::string_view bytes);

  // For collectives/reducer.cc.
  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const;
  std::string name() const;  // "rank 1 of 3"

 private:
  struct State;
  absl::Status AllReduce(at::Tensor tensor, const char* doing, int operation) const;
  explicit Group(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::collectives
