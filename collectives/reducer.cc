#include "collectives/reducer.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <stdexcept>
#include <stop_token>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "collectives/c10d_status.h"
#include "collectives/table_gradient.h"
#include "runtime/mutex.h"
#include "runtime/status.h"

namespace polystill::collectives {
namespace {

using Future = c10::ivalue::Future;

// The end of a bucket's reduction as c10d::Reducer, which waits for nothing else, is to see it: the interruption of the
// group ends it too. Thread-safe.
class BucketEnd {
 public:
  explicit BucketEnd(const Future& reduction) : future_(c10::make_intrusive<Future>(reduction.elementType())) {}

  void Take(Future& reduction) {
    if (settled_.exchange(true)) return;
    if (reduction.hasError()) {
      future_->setError(reduction.exception_ptr());
    } else {
      future_->markCompleted(reduction.value());
    }
  }

  void Interrupt() {
    if (settled_.exchange(true)) return;
    future_->setError(std::make_exception_ptr(std::runtime_error("interrupted")));
  }

  const c10::intrusive_ptr<Future>& future() const { return future_; }

 private:
  const c10::intrusive_ptr<Future> future_;
  std::atomic<bool> settled_ = false;
};

// Sums a bucket over the ranks and keeps hold of the work, to ask afterwards whether it came to its end. c10d::Reducer
// divides by the world size only where no such hook is set.
class SumHook : public c10d::CommHookInterface {
 public:
  explicit SumHook(const Group* group) : group_(group), on_interrupt_(group->interrupt(), [this] { Interrupt(); }) {}

  c10::intrusive_ptr<Future> runHook(c10d::GradBucket& bucket) override {
    works_.push_back(group_->Start(bucket.getBuffer()));
    const auto reduction = works_.back()->getFuture();
    if (bucket.getBuffer().is_cuda()) return reduction;  // complete at once: its stream waits
    const auto end = std::make_shared<BucketEnd>(*reduction);
    reduction->addCallback([end](Future& done) { end->Take(done); });
    {
      MutexLock lock(&mutex_);
      ends_.push_back(end);
    }
    if (group_->interrupted()) end->Interrupt();
    return end->future();
  }

  at::Tensor parseHookResult(const c10::IValue& result) override {
    return c10d::detail::parseCppCommHookResult(result);
  }

  void Begin() {
    works_.clear();
    MutexLock lock(&mutex_);
    ends_.clear();
  }

  // Whether a bucket could not be reduced since Begin. (A work's future knows before the work says so.)
  bool Failed() const {
    return group_->interrupted() ||
           std::any_of(works_.begin(), works_.end(), [](const auto& work) { return work->getFuture()->hasError(); });
  }

  // Buckets that were reduced whole since Begin. Throws when one was not.
  int Completed() {
    for (const auto& work : works_) group_->Await(*work);
    return static_cast<int>(works_.size());
  }

 private:
  void Interrupt() {
    std::vector<std::shared_ptr<BucketEnd>> ends;
    {
      MutexLock lock(&mutex_);
      ends = ends_;
    }
    for (const auto& end : ends) end->Interrupt();
  }

  const Group* const group_;
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
  Mutex mutex_;
  // Of the works since Begin.
  std::vector<std::shared_ptr<BucketEnd>> ends_ ABSL_GUARDED_BY(mutex_);
  const std::stop_callback<std::function<void()>> on_interrupt_;  // last: it uses what is above
};

}  // namespace

struct Reducer::State {
  const Group* group = nullptr;
  std::vector<at::Tensor> parameters;
  std::vector<TableGradient> tables;
  int buckets = 0;
  // Whether the gradients in place are parts of the step under way.
  bool accumulating = false;
  SumHook* hook = nullptr;  // owned by `reducer`
  std::unique_ptr<c10d::Reducer> reducer;
};

Reducer::Reducer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Reducer::~Reducer() = default;

absl::StatusOr<std::unique_ptr<Reducer>> Reducer::Create(const std::vector<at::Tensor>& parameters,
                                                         const std::vector<at::Tensor>& tables, const Group* group) {
  auto state = std::make_unique<State>();
  state->group = group;
  state->parameters.assign(parameters.rbegin(), parameters.rend());
  RETURN_IF_ERROR(CatchC10d(absl::StrCat(group->name(), ": prepare the all-reduce"), [&] {
    for (const at::Tensor& table : tables) state->tables.emplace_back(table, group);
    const std::vector<size_t> limits = {c10d::kDefaultFirstBucketBytes, c10d::kDefaultBucketBytesCap};
    const auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(state->parameters, limits));
    state->buckets = static_cast<int>(buckets.size());
    state->reducer = std::make_unique<c10d::Reducer>(
        state->parameters, buckets, group->process_group(), std::vector<bool>(parameters.size(), false),
        c10d::kDefaultBucketBytesCap, /*find_unused_parameters=*/false, /*gradient_as_bucket_view=*/true,
        std::unordered_map<size_t, std::string>(), c10d::kDefaultFirstBucketBytes,
        /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>());
    auto hook = std::make_unique<SumHook>(group);
    state->hook = hook.get();
    state->reducer->register_comm_hook(std::move(hook));
    // A Reducer that was not rebuilt yet notes the order of the gradients in every step, without end. Rebuilt at once
    // with the order it has already, it keeps its layout and notes nothing.
    state->reducer->push_rebuilt_params_for_all_indices();
    state->reducer->rebuild_buckets();
  }));
  return std::unique_ptr<Reducer>(new Reducer(std::move(state)));
}

// Without a gradient in place, backward hands over the new one, and the Reducer copies it into its bucket: one pass
// over the parameters instead of clearing and adding.
void Reducer::ClearGradients() {
  for (at::Tensor& parameter : state_->parameters) parameter.mutable_grad().reset();
  for (TableGradient& table : state_->tables) table.Clear();
}

absl::Status Reducer::Accumulate(const at::Tensor& loss) {
  if (!state_->accumulating) ClearGradients();
  state_->accumulating = true;
  // Not prepared for a backward, the Reducer lets this one pass.
  RETURN_IF_ERROR(CatchC10d(absl::StrCat(state_->group->name(), ": compute gradients"), [&] { loss.backward(); }));
  for (TableGradient& table : state_->tables) RETURN_IF_ERROR(table.Merge());
  return absl::OkStatus();
}

absl::Status Reducer::Backward(const at::Tensor& loss) {
  if (!state_->accumulating) ClearGradients();
  state_->accumulating = false;
  state_->hook->Begin();
  int completed = 0;
  const absl::Status status =
      CatchC10d(absl::StrCat(state_->group->name(), ": add up the gradients over the ranks"), [&] {
        state_->reducer->prepare_for_backward({});
        loss.backward();
        completed = state_->hook->Completed();
      });
  // Nobody else is to blame for what goes wrong in this rank's own backward pass.
  if (absl::IsAborted(status) && !state_->hook->Failed()) return absl::InternalError(status.message());
  RETURN_IF_ERROR(status);
  if (completed != state_->buckets) {
    return absl::InternalError(absl::StrCat(state_->group->name(), ": ", completed, " of ", state_->buckets,
                                            " buckets of gradients were reduced: the loss does not depend on every "
                                            "parameter"));
  }
  for (TableGradient& table : state_->tables) RETURN_IF_ERROR(table.Reduce());
  return absl::OkStatus();
}

int Reducer::buckets() const { return state_->buckets; }

}  // namespace polystill::collectives
