#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/jobs.h"
#include "tests/simulation/bugs.h"
#include "tests/simulation/durable_store.h"
#include "tests/simulation/group.h"
#include "tests/simulation/network.h"

namespace polystill::simulation {

class Coordinator;
class Teacher;
class Worker;

// What a schedule's run is, drawn from its seed.
struct RunShape {
  std::vector<coordinator::PlannedJob> jobs;
  std::vector<v1::Teacher> teachers;
  int workers = 1;
  int servers = 0;
  int64_t first_job_steps = 0;
  int roll_call_every = 1;
};
RunShape DrawRun(World* world);

// All processes of a run, and what lies between them.
class Cluster {
 public:
  Cluster(World* world, const Bugs& bugs, RunShape run);
  ~Cluster();

  World& world() { return *world_; }
  Network& network() { return network_; }
  History& history() { return history_; }
  DurableStore& store() { return store_; }
  const Bugs& bugs() const { return bugs_; }
  const RunShape& run() const { return run_; }

  void Start();
  // Another coordinator on the same state, whether or not the last one is gone.
  void StartCoordinator();
  // To which a process connects next: now and then an older one that is still there. Null when there is none.
  Coordinator* FindCoordinator(const Process* from);
  std::shared_ptr<Group> GroupOf(const v1::WorkerOrder::Assignment& assignment);
  Teacher* FindServer(const std::string& address);
  // A process died.
  void Bury(const Process* process);

  const std::vector<std::unique_ptr<Coordinator>>& coordinators() const { return coordinators_; }
  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }
  const std::vector<std::unique_ptr<Teacher>>& servers() const { return servers_; }
  // The run is done: its report was written.
  bool done() const { return done_; }
  void SetDone() { done_ = true; }

  // What coordinators have done about workers that are slow, that hang, and that the others do not reach.
  struct Measures {
    int64_t left_out = 0;
    int64_t given_up = 0;
    int64_t not_reached = 0;
  };
  Measures& measures() { return measures_; }

 private:
  World* const world_;
  const Bugs bugs_;
  const RunShape run_;
  Network network_;
  History history_;
  DurableStore store_;
  // By store and prefix: each coordinator hosts a store of its own.
  std::map<std::pair<int, std::string>, std::shared_ptr<Group>> groups_;
  std::vector<std::unique_ptr<Coordinator>> coordinators_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::unique_ptr<Teacher>> servers_;
  bool done_ = false;
  Measures measures_;
};

}  // namespace polystill::simulation
