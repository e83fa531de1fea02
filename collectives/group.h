#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace c10d {
class Work;
class ProcessGroup;
}  // namespace c10d

namespace polystill::collectives {

// The ranks of one generation, connected by Gloo, and by NCCL where the gradients are on GPUs. Every call is a
// collective: all ranks make the same calls in the same order, else they fail. Each fails with ABORTED, naming this
// rank and the peer's address where Gloo knows it, when a peer has died, has left, or does not answer within the
// timeout; then the group is of no use any more. A group that is destroyed, or interrupted, closes its connections, so
// that peers that wait for it find out at once. Not thread-safe, but for the interruption.
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
    // For all ranks to have come.
    std::chrono::milliseconds join_timeout{30'000};
    // Once requested, Create and every collective, those under way and all later ones, fail with ABORTED within 100 ms,
    // though a peer hangs. Any thread may request it. Those under way may write to their tensors until `timeout`.
    std::stop_token interrupt = {};
  };

  // Waits for all ranks; afterwards the store is not needed any more. INVALID_ARGUMENT when `host` is not this
  // machine's. The process ignores SIGPIPE from then on. A Create that was interrupted leaves a thread behind, which
  // ends after join_timeout at most (collectives/background.h).
  static absl::StatusOr<std::unique_ptr<Group>> Create(const Options& options);
  ~Group();

  int rank() const;
  std::chrono::milliseconds timeout() const;
  int world_size() const;
  bool interrupted() const;
  const std::stop_token& interrupt() const;

  // Adds up `tensor` (contiguous, of the same shape everywhere) over the ranks, in place.
  absl::Status AllReduceSum(at::Tensor tensor) const;
  // The same for the largest of each element.
  absl::Status AllReduceMax(at::Tensor tensor) const;

  // Begins AllReduceSum of a tensor on the CPU, which goes on beside what the caller does; other collectives may begin
  // meanwhile. The result waits for its end, once; until then the tensor is not to be touched.
  using Ending = std::function<absl::Status()>;
  absl::StatusOr<Ending> BeginAllReduceSum(at::Tensor tensor) const;

  // Gives every rank the `tensor` of rank `from` (contiguous, on the CPU, of the same shape everywhere), in place.
  absl::Status Broadcast(at::Tensor tensor, int from) const;

  // What each rank gave, by rank. Short strings of any length.
  absl::StatusOr<std::vector<std::string>> AllGather(std::string_view bytes);

  // For collectives/reducer.cc.
  const c10::intrusive_ptr<c10d::ProcessGroup>& process_group() const;
  // Begins to sum up a tensor; throws c10::Error. The other: waits on the host for its end or the interruption, and
  // throws what it failed with.
  c10::intrusive_ptr<c10d::Work> Start(at::Tensor tensor) const;
  void Await(c10d::Work& work) const;
  std::string name() const;  // "rank 1 of 3"

 private:
  struct State;
  struct Joining;
  absl::Status AllReduce(at::Tensor tensor, const char* doing, int operation) const;
  // Begins a collective by `call`, unless the group was interrupted.
  template <typename Call>
  c10::intrusive_ptr<c10d::Work> StartBy(Call call) const;
  explicit Group(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::collectives
