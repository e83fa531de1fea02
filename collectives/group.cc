#include "collectives/group.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "collectives/await_on_host.h"
#include "collectives/c10d_status.h"
#include "runtime/address.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"

namespace polystill::collectives {
namespace {

c10::intrusive_ptr<c10d::Store> ConnectStore(const Group::Options& options) {
  if (options.world_size == 1) return c10::make_intrusive<c10d::HashStore>();
  c10d::TCPStoreOptions store_options;
  store_options.port = static_cast<uint16_t>(options.store_port);
  store_options.waitWorkers = false;
  store_options.timeout = options.timeout;
  return c10::make_intrusive<c10d::PrefixStore>(
      options.store_prefix, c10::make_intrusive<c10d::TCPStore>(WithoutBrackets(options.store_host), store_options));
}

}  // namespace

struct Group::State {
  Options options;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

Group::Group(std::unique_ptr<State> state) : state_(std::move(state)) {}
Group::~Group() = default;

absl::StatusOr<std::unique_ptr<Group>> Group::Create(const Options& options) {
  std::signal(SIGPIPE, SIG_IGN);  // Gloo writes to sockets whose other end may have died
  auto group = std::unique_ptr<Group>(new Group(std::make_unique<State>()));
  group->state_->options = options;
  auto gloo = c10d::ProcessGroupGloo::Options::create(options.timeout);
  const absl::Status device = CatchC10d("listen", [&] {
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(WithoutBrackets(options.host)));
  });
  if (!device.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--host ", options.host, " is not a name or address of this machine: ", device.message()));
  }
  const std::string doing = absl::StrCat(group->name(), ": join the group at ", options.store_host, ":",
                                         options.store_port, " (", options.store_prefix, ")");
  RETURN_IF_ERROR(CatchC10d(doing, [&] {
    const auto store = ConnectStore(options);
    auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.world_size, gloo);
    auto& wrapper = group->state_->group;
    wrapper = c10::make_intrusive<c10d::ProcessGroup>(store, options.rank, options.world_size);
    wrapper->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, backend);
    if (options.device.is_cuda()) {
      wrapper->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL,
                          cuda::MakeNccl(c10::make_intrusive<c10d::PrefixStore>("nccl", store), options.rank,
                                         options.world_size, options.timeout));
    }
    wrapper->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  }));
  return group;
}

int Group::rank() const { return state_->options.rank; }
std::chrono::milliseconds Group::timeout() const { return state_->options.timeout; }
int Group::world_size() const { return state_->options.world_size; }
const c10::intrusive_ptr<c10d::ProcessGroup>& Group::process_group() const { return state_->group; }
std::string Group::name() const { return absl::StrCat("rank ", rank(), " of ", world_size()); }

absl::Status Group::AllReduceSum(at::Tensor tensor) const {
  return AllReduce(std::move(tensor), ": add up over the ranks", c10d::ReduceOp::SUM);
}

absl::Status Group::AllReduceMax(at::Tensor tensor) const {
  return AllReduce(std::move(tensor), ": find the largest over the ranks", c10d::ReduceOp::MAX);
}

absl::Status Group::AllReduce(at::Tensor tensor, const char* doing, int operation) const {
  if (world_size() == 1) return absl::OkStatus();
  return CatchC10d(absl::StrCat(name(), doing), [&] {
    std::vector<at::Tensor> tensors = {std::move(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(operation);
    const auto work = state_->group->allreduce(tensors, options);
    work->wait();
    AwaitOnHost(*work, timeout());
  });
}

// Sums of arrays in which every rank has filled its own row: no second collective is needed for these few bytes.
absl::StatusOr<std::vector<std::string>> Group::AllGather(std::string_view bytes) {
  const at::Tensor lengths = at::zeros({world_size()}, at::kLong);
  int64_t* length_of = lengths.mutable_data_ptr<int64_t>();
  length_of[rank()] = static_cast<int64_t>(bytes.size());
  RETURN_IF_ERROR(AllReduceSum(lengths));
  const int64_t longest = *std::max_element(length_of, length_of + world_size());
  const at::Tensor rows = at::zeros({world_size(), longest}, at::kByte);
  char* row = reinterpret_cast<char*>(rows.mutable_data_ptr<uint8_t>());
  std::memcpy(row + rank() * longest, bytes.data(), bytes.size());
  if (longest > 0) RETURN_IF_ERROR(AllReduceSum(rows));
  std::vector<std::string> gathered;
  for (int i = 0; i < world_size(); ++i) gathered.emplace_back(row + i * longest, length_of[i]);
  return gathered;
}

}  // namespace polystill::collectives
