#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/run_events.h"
#include "tests/simulation/bugs.h"
#include "tests/simulation/history.h"

namespace polystill::simulation {

// What coordinator::StateStore is to RunLoop: every record is a transaction of its term, durable when the call returns.
class DurableStore {
 public:
  struct Content {
    int64_t term = 0;
    coordinator::StateStore::Generation generation;
    int64_t wanted_workers = 0;
    std::map<std::string, std::vector<coordinator::StateStore::Checkpoint>> checkpoints;
    std::map<std::string, std::string> finished;
    std::map<std::string, v1::PlanSegment> segments;
  };
  DurableStore(History* history, const Bugs& bugs) : history_(history), bugs_(bugs) {}

  // Begins a term; what an earlier one left, checkpoints that do not verify struck out.
  Content Open();
  // Carries out an action that is to be durable; others are OK. FAILED_PRECONDITION: a later term has begun.
  absl::Status Record(int64_t term, const coordinator::Action& action);

 private:
  void Clean(const coordinator::CleanCheckpoints& clean);
  void Take(int64_t term, const coordinator::Action& action);

  History* const history_;
  const Bugs& bugs_;
  Content disk_;
};

}  // namespace polystill::simulation
