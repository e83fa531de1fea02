#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "teacher_server/label_task.h"

namespace polystill::teacher_server {

struct QueueLimits {
  int64_t max_records = 16'384;
  int64_t max_tokens = 4 << 20;
  // Memory of the waiting requests.
  int64_t max_bytes = 256 << 20;
  // Tenants that have something waiting.
  int64_t max_tenants = 256;
};

// A bounded queue of requests that is shared fairly, by tokens:
//
//   1. Between the priorities: where both wait, training gets 90% of the tokens and what is on demand 10%.
//   2. Within a priority: where several tenants wait, each gets as many tokens as any other.
//   3. Within a tenant and priority: first come, first served.
//
// What nobody uses goes to the others. 1 and 2 are deficit round robin (Shreedhar and Varghese, Efficient fair queueing
// using deficit round robin, SIGCOMM 1995): each turn is worth a quantum of tokens; what is left of it is kept for the
// next turn while more waits. While two tenants of a priority wait, what they get differs by less than a quantum and
// the tokens of the largest request.
//
// Of n tenants that wait each owns an n-th of the room; who has more has borrowed it, and gives it back, the youngest
// requests first, when one asks for his own. Not thread-safe; costs are linear in the tenants that wait.
class FairQueue {
 public:
  // Tokens of a tenant's turn.
  static constexpr int64_t kQuantum = 1'024;
  enum Lane { kTraining, kOnDemand, kLanes };
  // Turns of all tenants together that a lane is worth, before it is the other's turn.
  static constexpr std::array<int64_t, kLanes> kWeights = {9, 1};

  explicit FairQueue(QueueLimits limits) : limits_(limits) {}
  FairQueue(const FairQueue&) = delete;  // turns point into it
  FairQueue& operator=(const FairQueue&) = delete;

  // Takes a task at the back of its tenant's and priority's. RESOURCE_EXHAUSTED when there is no room for it: beyond
  // its tenant's part of the room, or one tenant too many. Those that had to make room go to `shed`. A queue that is
  // empty takes any task.
  absl::Status Push(LabelTask task, std::vector<LabelTask>* shed);

  // The next that Pop would give, `most` at most. They live until the queue is changed.
  std::vector<const LabelTask*> Front(size_t most) const;
  // The next one. The queue is not empty.
  LabelTask Pop();
  // Takes out all such tasks, in no particular order.
  std::vector<LabelTask> RemoveIf(const std::function<bool(const LabelTask&)>& remove);

  bool empty() const { return tenants_.empty(); }
  // What waits.
  Load load() const;
  const Load& load(Lane lane) const { return lane_loads_[lane]; }

  static Lane LaneOf(v1::Priority priority) { return priority == v1::PRIORITY_TRAINING ? kTraining : kOnDemand; }

 private:
  struct Tenant {
    std::array<std::deque<LabelTask>, kLanes> waiting;
    Load load;
  };
  using Tenants = std::map<std::string, Tenant>;

  // A place in a round of deficit round robin. While it is in the round it has something to give.
  struct Turn {
    int64_t quantum = kQuantum;
    int64_t deficit = 0;
    // It has got its quantum, and is at the front.
    bool begun = false;
  };
  struct TenantTurn : Turn {
    const std::deque<LabelTask>* tasks = nullptr;
    // The next of its tasks.
    size_t next = 0;
    int64_t Cost() const { return (*tasks)[next].tokens; }
  };
  struct LaneTurn : Turn {
    Lane lane = kTraining;
    std::deque<TenantTurn> tenants;
    int64_t Cost() const { return tenants.front().Cost(); }
  };
  // Whose turn it is; small, so that what comes next is found by going on with a copy.
  struct Rounds {
    std::deque<LaneTurn> lanes;
    // The next task; its tokens are taken from those whose turn it is. Then DropIfDone.
    const LabelTask* Take();
    // Those who were the last to give and have nothing left are out of the round.
    void DropIfDone();
  };
  // Passes the turn on until the front one can pay for its next task.
  template <typename Turns>
  static void PassOn(Turns* turns);

  static Load LoadOf(const LabelTask& task);
  void Charge(const LabelTask& task, Tenant* tenant, int sign);
  // Why a task of such a load gets no room even if others give back what they have borrowed; else OK.
  absl::Status Admit(const std::string& tenant, const Load& load) const;
  // What there is too much of with such a load more; null when there is room.
  int64_t Load::*Excess(const Load& more) const;
  // Takes out the youngest task of the tenant that has most of it.
  LabelTask Shed(int64_t Load::*what);
  void JoinRound(Lane lane, const std::deque<LabelTask>* tasks);
  // After tasks were taken out of turn: who has nothing left is out of the rounds.
  void LeaveRounds();

  const QueueLimits limits_;
  Tenants tenants_;  // those that wait
  std::array<Load, kLanes> lane_loads_;
  Rounds rounds_;
};

}  // namespace polystill::teacher_server
