#include "collectives/group.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <functional>
#include <optional>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "collectives/background.h"
#include "collectives/c10d_status.h"
#include "runtime/address.h"
#include "runtime/cuda/device.h"
#include "runtime/mutex.h"
#include "runtime/status.h"

namespace polystill::collectives {
namespace {

// A tag of Gloo's point-to-point messages; there are no others.
constexpr int kNobodysTag = 1;

c10::intrusive_ptr<c10d::Store> ConnectStore(const Group::Options& options) {
  if (options.world_size == 1) return c10::make_intrusive<c10d::HashStore>();
  c10d::TCPStoreOptions store_options;
  store_options.port = static_cast<uint16_t>(options.store_port);
  store_options.waitWorkers = false;
  store_options.timeout = options.join_timeout;
  return c10::make_intrusive<c10d::PrefixStore>(
      options.store_prefix, c10::make_intrusive<c10d::TCPStore>(WithoutBrackets(options.store_host), store_options));
}

// For a group that is destroyed to be let go; see LetGo.
constexpr std::chrono::milliseconds kLetGoWithin(200);

// Closes the connections, so that peers find out. Gloo has no such call; but when one operation times out it fails all
// others of its group and closes their connections. So this waits a moment for a message that nobody sends: from any
// peer that is still connected, since with one that is gone it would fail without timing out.
//
// Not every operation fails by this: Gloo forgets those whose send was written in part, or had found the connection
// broken before its reader did, and they wait for their time-out. So nobody here waits for an operation's end alone.
void EndGloo(c10d::Backend& gloo, int rank, int world_size) {
  for (int peer = 0; peer < world_size; ++peer) {
    if (peer == rank) continue;
    try {
      std::vector<at::Tensor> nothing = {at::zeros({1}, at::kByte)};
      gloo.recv(nothing, peer, kNobodysTag)->wait(std::chrono::milliseconds(1));
    } catch (const std::exception&) {  // as it should be
    }
  }
}

}  // namespace

// Connecting, on a thread of its own: it may hang in the store, or in Gloo's handshake, for as long as join_timeout.
struct Group::Joining {
  Mutex mutex;
  CondVar changed;
  bool ended ABSL_GUARDED_BY(mutex) = false;
  absl::Status status ABSL_GUARDED_BY(mutex);
  c10::intrusive_ptr<c10d::ProcessGroup> group ABSL_GUARDED_BY(mutex);
  c10::intrusive_ptr<c10d::Backend> gloo ABSL_GUARDED_BY(mutex), nccl ABSL_GUARDED_BY(mutex);

  void Run(const Options& options) {
    c10::intrusive_ptr<c10d::Backend> gloo_backend, nccl_backend;
    c10::intrusive_ptr<c10d::ProcessGroup> wrapper;
    const absl::Status result = Connect(options, &wrapper, &gloo_backend, &nccl_backend);
    MutexLock lock(&mutex);
    ended = true;
    status = result;
    group = std::move(wrapper);
    gloo = std::move(gloo_backend);
    nccl = std::move(nccl_backend);
    changed.NotifyAll();
  }

  static absl::Status Connect(const Options& options, c10::intrusive_ptr<c10d::ProcessGroup>* wrapper,
                              c10::intrusive_ptr<c10d::Backend>* gloo, c10::intrusive_ptr<c10d::Backend>* nccl) {
    auto gloo_options = c10d::ProcessGroupGloo::Options::create(options.join_timeout);
    const absl::Status device = CatchC10d("listen", [&] {
      gloo_options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(WithoutBrackets(options.host)));
    });
    if (!device.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--host ", options.host, " is not a name or address of this machine: ", device.message()));
    }
    return CatchC10d(absl::StrCat("join the group at ", options.store_host, ":", options.store_port, " (",
                                  options.store_prefix, ")"),
                     [&] {
                       const auto store = ConnectStore(options);
                       *wrapper = c10::make_intrusive<c10d::ProcessGroup>(store, options.rank, options.world_size);
                       *gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, options.rank, options.world_size,
                                                                           gloo_options);
                       (*gloo)->setTimeout(options.timeout);
                       (*wrapper)->setBackend(c10::DeviceType::CPU, c10d::ProcessGroup::BackendType::GLOO, *gloo);
                       if (options.device.is_cuda()) {
                         *nccl = cuda::MakeNccl(c10::make_intrusive<c10d::PrefixStore>("nccl", store), options.rank,
                                                options.world_size, options.timeout);
                         (*wrapper)->setBackend(c10::DeviceType::CUDA, c10d::ProcessGroup::BackendType::NCCL, *nccl);
                       }
                       (*wrapper)->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
                     });
  }
};

struct Group::State {
  // Told of each end of an operation, of the interruption, and of the end of work in the background. Outlives the group
  // where operations do.
  struct Events {
    Mutex mutex;
    CondVar changed;
    int in_background ABSL_GUARDED_BY(mutex) = 0;

    void Tell() {
      MutexLock lock(&mutex);
      changed.NotifyAll();
    }
  };

  Options options;
  c10::intrusive_ptr<c10d::ProcessGroup> group;
  c10::intrusive_ptr<c10d::Backend> gloo, nccl;
  // Held while an operation is begun, which waits for nobody: Gloo counts them, without a lock of its own.
  Mutex mutex;
  bool ended ABSL_GUARDED_BY(mutex) = false;
  const std::shared_ptr<Events> events = std::make_shared<Events>();
  std::optional<std::stop_callback<std::function<void()>>> on_interrupt;  // last: it uses everything above

  void InBackground(std::function<void()> work) {
    {
      MutexLock lock(&events->mutex);
      ++events->in_background;
    }
    RunInBackground([events = events, work = std::move(work)]() mutable {
      work();
      work = nullptr;
      MutexLock lock(&events->mutex);
      --events->in_background;
      events->changed.NotifyAll();
    });
  }

  // No operation begins any more, and none is waited for.
  void End() {
    {
      MutexLock lock(&mutex);
      if (std::exchange(ended, true)) return;
    }
    events->Tell();
    // An abort may hang; what is stuck on the GPU ends with it or with the process.
    if (nccl != nullptr) InBackground([nccl = nccl] { nccl->abort(); });
    InBackground(
        [gloo = gloo, rank = options.rank, world_size = options.world_size] { EndGloo(*gloo, rank, world_size); });
  }

  // Gloo's destructor waits for every operation, those that it forgot too: then nobody waits for it.
  void LetGo() {
    InBackground([group = std::move(group), gloo = std::move(gloo), nccl = std::move(nccl)] {});
    const auto end = std::chrono::steady_clock::now() + kLetGoWithin;
    MutexLock lock(&events->mutex);
    while (events->in_background > 0 && std::chrono::steady_clock::now() < end) {
      events->changed.WaitFor(&events->mutex, end - std::chrono::steady_clock::now());
    }
  }
};

Group::Group(std::unique_ptr<State> state) : state_(std::move(state)) {}

Group::~Group() {
  if (state_->group == nullptr) return;  // never formed
  state_->on_interrupt.reset();
  state_->End();
  state_->LetGo();
}

absl::StatusOr<std::unique_ptr<Group>> Group::Create(const Options& options) {
  std::signal(SIGPIPE, SIG_IGN);  // Gloo writes to sockets whose other end may have died
  auto group = std::unique_ptr<Group>(new Group(std::make_unique<State>()));
  State& state = *group->state_;
  state.options = options;
  const auto joining = std::make_shared<Joining>();
  RETURN_IF_ERROR(
      Annotate(RunInBackground([joining, options] { joining->Run(options); }, options.interrupt), group->name()));
  {
    std::stop_callback wake(options.interrupt, [&joining] {
      MutexLock lock(&joining->mutex);
      joining->changed.NotifyAll();
    });
    MutexLock lock(&joining->mutex);
    while (!joining->ended && !options.interrupt.stop_requested()) joining->changed.Wait(&joining->mutex);
    if (options.interrupt.stop_requested()) {
      return absl::AbortedError(absl::StrCat(group->name(), ": interrupted while joining the group"));
    }
    RETURN_IF_ERROR(Annotate(joining->status, group->name()));
    state.group = std::move(joining->group);
    state.gloo = std::move(joining->gloo);
    state.nccl = std::move(joining->nccl);
  }
  state.on_interrupt.emplace(options.interrupt, [&state] { state.End(); });
  return group;
}

int Group::rank() const { return state_->options.rank; }
std::chrono::milliseconds Group::timeout() const { return state_->options.timeout; }
int Group::world_size() const { return state_->options.world_size; }
bool Group::interrupted() const { return interrupt().stop_requested(); }
const std::stop_token& Group::interrupt() const { return state_->options.interrupt; }
const c10::intrusive_ptr<c10d::ProcessGroup>& Group::process_group() const { return state_->group; }
std::string Group::name() const { return absl::StrCat("rank ", rank(), " of ", world_size()); }

template <typename Call>
c10::intrusive_ptr<c10d::Work> Group::StartBy(Call call) const {
  MutexLock lock(&state_->mutex);
  TORCH_CHECK(!state_->ended, "interrupted");
  return call();
}

c10::intrusive_ptr<c10d::Work> Group::Start(at::Tensor tensor) const {
  std::vector<at::Tensor> tensors = {std::move(tensor)};
  return StartBy([&] { return state_->group->allreduce(tensors); });
}

void Group::Await(c10d::Work& work) const {
  const auto end = std::chrono::steady_clock::now() + timeout();
  const auto future = work.getFuture();
  State::Events& events = *state_->events;
  if (!future->completed()) {
    future->addCallback([events = state_->events](c10::ivalue::Future&) { events->Tell(); });
    MutexLock lock(&events.mutex);
    while (!future->completed() && !interrupted() && std::chrono::steady_clock::now() < end) {
      events.changed.WaitFor(&events.mutex, end - std::chrono::steady_clock::now());
    }
  }
  TORCH_CHECK(!interrupted(), "interrupted");
  TORCH_CHECK(future->completed(), "a collective did not end in time");
  if (future->hasError()) std::rethrow_exception(future->exception_ptr());
  work.wait();  // of a GPU's work, whose future is complete at once, only its stream waits
  while (!work.isCompleted()) {
    TORCH_CHECK(!interrupted(), "interrupted");
    TORCH_CHECK(std::chrono::steady_clock::now() < end, "a collective did not end in time");
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  if (work.exception()) std::rethrow_exception(work.exception());
}

absl::Status Group::AllReduceSum(at::Tensor tensor) const {
  return AllReduce(std::move(tensor), ": add up over the ranks", c10d::ReduceOp::SUM);
}

absl::Status Group::AllReduceMax(at::Tensor tensor) const {
  return AllReduce(std::move(tensor), ": find the largest over the ranks", c10d::ReduceOp::MAX);
}

absl::Status Group::AllReduce(at::Tensor tensor, const char* doing, int operation) const {
  return CatchC10d(absl::StrCat(name(), doing), [&] {
    if (world_size() == 1 && !interrupted()) return;
    std::vector<at::Tensor> tensors = {std::move(tensor)};
    c10d::AllreduceOptions options;
    options.reduceOp = static_cast<c10d::ReduceOp::RedOpType>(operation);
    Await(*StartBy([&] { return state_->group->allreduce(tensors, options); }));
  });
}

absl::StatusOr<Group::Ending> Group::BeginAllReduceSum(at::Tensor tensor) const {
  const std::string doing = absl::StrCat(name(), ": add up over the ranks");
  if (world_size() == 1) return [this, tensor] { return AllReduceSum(tensor); };
  c10::intrusive_ptr<c10d::Work> work;
  RETURN_IF_ERROR(CatchC10d(doing, [&] { work = Start(std::move(tensor)); }));
  return [this, doing, work] { return CatchC10d(doing, [&] { Await(*work); }); };
}

absl::Status Group::Broadcast(at::Tensor tensor, int from) const {
  return CatchC10d(absl::StrCat(name(), ": receive from rank ", from), [&] {
    if (world_size() == 1 && !interrupted()) return;
    std::vector<at::Tensor> tensors = {std::move(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    Await(*StartBy([&] { return state_->group->broadcast(tensors, options); }));
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
