#include "teacher_server/fair_queue.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill::teacher_server {

template <typename Turns>
void FairQueue::PassOn(Turns* turns) {
  if (turns->front().begun && turns->front().deficit >= turns->front().Cost()) return;
  // Rounds in which nobody could pay yet would only add a quantum to each: all of them at once.
  int64_t rounds = INT64_MAX;
  for (const auto& turn : *turns) {
    rounds = std::min(rounds, (turn.Cost() - turn.deficit + turn.quantum - 1) / turn.quantum - 1);
  }
  for (auto& turn : *turns) turn.deficit += std::max<int64_t>(0, rounds) * turn.quantum;
  while (true) {
    auto& front = turns->front();
    if (!std::exchange(front.begun, true)) front.deficit += front.quantum;
    if (front.deficit >= front.Cost()) return;
    front.begun = false;
    turns->push_back(std::move(front));
    turns->pop_front();
  }
}

const LabelTask* FairQueue::Rounds::Take() {
  for (LaneTurn& lane : lanes) PassOn(&lane.tenants);
  PassOn(&lanes);
  LaneTurn& lane = lanes.front();
  TenantTurn& tenant = lane.tenants.front();
  const int64_t cost = tenant.Cost();
  lane.deficit -= cost;
  tenant.deficit -= cost;
  return &(*tenant.tasks)[tenant.next++];
}

void FairQueue::Rounds::DropIfDone() {
  LaneTurn& lane = lanes.front();
  if (lane.tenants.front().next < lane.tenants.front().tasks->size()) return;
  lane.tenants.pop_front();
  if (lane.tenants.empty()) lanes.pop_front();
}

Load FairQueue::LoadOf(const LabelTask& task) {
  return {task.request.inputs_size(), task.tokens, static_cast<int64_t>(task.request.ByteSizeLong())};
}

Load FairQueue::load() const {
  Load sum;
  for (const Load& lane : lane_loads_) {
    sum.records += lane.records;
    sum.tokens += lane.tokens;
    sum.bytes += lane.bytes;
  }
  return sum;
}

void FairQueue::Charge(const LabelTask& task, Tenant* tenant, int sign) {
  const Load load = LoadOf(task);
  for (Load* account : {&tenant->load, &lane_loads_[LaneOf(task.request.priority())]}) {
    account->records += sign * load.records;
    account->tokens += sign * load.tokens;
    account->bytes += sign * load.bytes;
  }
}

int64_t Load::*FairQueue::Excess(const Load& more) const {
  if (tenants_.empty()) return nullptr;
  const Load all = load();
  if (all.records + more.records > limits_.max_records) return &Load::records;
  if (all.tokens + more.tokens > limits_.max_tokens) return &Load::tokens;
  if (all.bytes + more.bytes > limits_.max_bytes) return &Load::bytes;
  return nullptr;
}

absl::Status FairQueue::Admit(const std::string& tenant, const Load& more) const {
  const auto found = tenants_.find(tenant);
  const auto count = static_cast<int64_t>(tenants_.size()) + (found == tenants_.end() ? 1 : 0);
  if (count > limits_.max_tenants) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the teacher's queue is full: ", tenants_.size(), " tenants wait; try again later"));
  }
  const Load own = found == tenants_.end() ? Load() : found->second.load;
  const bool is_its_own = (own.records + more.records) * count <= limits_.max_records &&
                          (own.tokens + more.tokens) * count <= limits_.max_tokens &&
                          (own.bytes + more.bytes) * count <= limits_.max_bytes;
  if (is_its_own || Excess(more) == nullptr) return absl::OkStatus();
  const Load all = load();
  return absl::ResourceExhaustedError(absl::StrCat("the teacher's queue is full: ", all.records, " records of ",
                                                   all.tokens, " tokens wait, ", own.records,
                                                   " of them this tenant's; try again later"));
}

absl::Status FairQueue::Push(LabelTask task, std::vector<LabelTask>* shed) {
  const Load more = LoadOf(task);
  RETURN_IF_ERROR(Admit(task.requester.tenant, more));
  // Where a tenant within its part finds no room, another has more than his.
  while (const auto what = Excess(more)) shed->push_back(Shed(what));
  Tenant& tenant = tenants_[task.requester.tenant];
  Charge(task, &tenant, 1);
  const Lane lane = LaneOf(task.request.priority());
  std::deque<LabelTask>& tasks = tenant.waiting[lane];
  tasks.push_back(std::move(task));
  if (tasks.size() == 1) JoinRound(lane, &tasks);
  return absl::OkStatus();
}

void FairQueue::JoinRound(Lane lane, const std::deque<LabelTask>* tasks) {
  auto& lanes = rounds_.lanes;
  auto found = std::find_if(lanes.begin(), lanes.end(), [&](const LaneTurn& turn) { return turn.lane == lane; });
  if (found == lanes.end()) {
    LaneTurn turn;
    turn.quantum = kWeights[lane] * kQuantum;
    turn.lane = lane;
    found = lanes.insert(lanes.end(), std::move(turn));
  }
  found->tenants.emplace_back().tasks = tasks;
}

LabelTask FairQueue::Shed(int64_t Load::*what) {
  const auto most = std::max_element(tenants_.begin(), tenants_.end(), [&](const auto& a, const auto& b) {
    return a.second.load.*what < b.second.load.*what;
  });
  auto& [training, on_demand] = most->second.waiting;
  const bool from_training =
      on_demand.empty() || (!training.empty() && training.back().arrival > on_demand.back().arrival);
  std::deque<LabelTask>& tasks = from_training ? training : on_demand;
  LabelTask youngest = std::move(tasks.back());
  Charge(youngest, &most->second, -1);
  tasks.pop_back();
  LeaveRounds();
  return youngest;
}

std::vector<const LabelTask*> FairQueue::Front(size_t most) const {
  Rounds ahead = rounds_;
  std::vector<const LabelTask*> front;
  while (front.size() < most && !ahead.lanes.empty()) {
    front.push_back(ahead.Take());
    ahead.DropIfDone();
  }
  return front;
}

LabelTask FairQueue::Pop() {
  const std::string& name = rounds_.Take()->requester.tenant;
  LaneTurn& lane = rounds_.lanes.front();
  const auto tenant = tenants_.find(name);
  std::deque<LabelTask>& tasks = tenant->second.waiting[lane.lane];
  Charge(tasks.front(), &tenant->second, -1);
  LabelTask task = std::move(tasks.front());
  tasks.pop_front();
  lane.tenants.front().next = 0;
  rounds_.DropIfDone();
  if (tenant->second.waiting[kTraining].empty() && tenant->second.waiting[kOnDemand].empty()) tenants_.erase(tenant);
  return task;
}

std::vector<LabelTask> FairQueue::RemoveIf(const std::function<bool(const LabelTask&)>& remove) {
  std::vector<LabelTask> removed;
  for (auto& [name, tenant] : tenants_) {
    for (std::deque<LabelTask>& tasks : tenant.waiting) {
      const auto first = std::stable_partition(tasks.begin(), tasks.end(), [&](const auto& t) { return !remove(t); });
      for (auto task = first; task != tasks.end(); ++task) {
        Charge(*task, &tenant, -1);
        removed.push_back(std::move(*task));
      }
      tasks.erase(first, tasks.end());
    }
  }
  if (!removed.empty()) LeaveRounds();
  return removed;
}

void FairQueue::LeaveRounds() {
  for (LaneTurn& lane : rounds_.lanes) {
    std::erase_if(lane.tenants, [](const TenantTurn& turn) { return turn.tasks->empty(); });
  }
  std::erase_if(rounds_.lanes, [](const LaneTurn& lane) { return lane.tenants.empty(); });
  std::erase_if(tenants_, [](const auto& entry) {
    return entry.second.waiting[kTraining].empty() && entry.second.waiting[kOnDemand].empty();
  });
}

}  // namespace polystill::teacher_server
