#include "tests/simulation/cluster.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/teacher.h"
#include "tests/simulation/worker.h"

namespace polystill::simulation {
namespace {

coordinator::PlannedJob DrawTraining(World* world, const RunShape& run, const std::string& name, int64_t steps) {
  coordinator::PlannedJob planned;
  planned.job.set_name(name);
  planned.job.set_kind(v1::Job::KIND_TRAIN);
  planned.job.set_steps(steps);
  planned.job.set_checkpoints("checkpoints/" + name);
  planned.job.set_keep_checkpoints(static_cast<int>(world->Draw(1, 3)));
  planned.job.set_checkpoint_every(world->Draw(0, 2) * 4);
  planned.workers = run.workers;
  // Half of all runs go on with any number of workers.
  planned.min_workers = world->Chance(50) ? 1 : static_cast<int>(world->Draw(0, run.workers));
  planned.max_workers = static_cast<int>(world->Draw(run.workers, run.workers + 1));
  planned.last_call = Millis(world->Draw(0, 10) * 1000);
  planned.evict_slower_than = world->Chance(50) ? 2.5 : 0;
  return planned;
}

}  // namespace

RunShape DrawRun(World* world) {
  RunShape run;
  run.workers = static_cast<int>(world->Draw(1, 4));
  run.servers = static_cast<int>(world->Draw(0, 2));
  run.roll_call_every = static_cast<int>(world->Draw(1, 4));
  run.first_job_steps = world->Draw(40, 70);
  run.jobs.push_back(DrawTraining(world, run, "distilled", run.first_job_steps));
  if (run.servers > 0) {
    run.jobs.back().teachers = {"english"};
    run.jobs.back().job.add_losses()->set_kind(v1::LOSS_KIND_SOFT_LABEL);
    v1::Teacher& teacher = run.teachers.emplace_back();
    teacher.set_name("english");
    teacher.set_package("models/english");
    teacher.set_replicas(run.servers);
  }
  if (world->Chance(60)) run.jobs.push_back(DrawTraining(world, run, "gold", world->Draw(1, 8)));
  if (world->Chance(60)) {
    coordinator::PlannedJob& evaluate = run.jobs.emplace_back();
    evaluate.job.set_name("evaluate");
    evaluate.job.set_kind(v1::Job::KIND_EVALUATE);
  }
  return run;
}

Cluster::Cluster(World* world, const Bugs& bugs, RunShape run)
    : world_(world), bugs_(bugs), run_(std::move(run)), network_(world), store_(&history_, bugs_) {
  for (int i = 0; i < run_.workers + 1; ++i) workers_.push_back(std::make_unique<Worker>(this, i));
  for (int i = 0; i < run_.servers; ++i) servers_.push_back(std::make_unique<Teacher>(this, i));
}

Cluster::~Cluster() = default;

void Cluster::Start() {
  StartCoordinator();
  for (const auto& server : servers_) world_->After(world_->Time(0, 1000), [&server] { server->Start(); });
  for (size_t i = 0; i < workers_.size(); ++i) {
    // The one that is too many comes late.
    const bool extra = i + 1 == workers_.size();
    world_->After(extra ? world_->Time(1000, 8000) : world_->Time(0, 1500), [this, i] { workers_[i]->Start(); });
  }
}

void Cluster::StartCoordinator() {
  coordinators_.push_back(std::make_unique<Coordinator>(this, static_cast<int>(coordinators_.size())));
  coordinators_.back()->Start();
}

Coordinator* Cluster::FindCoordinator(const Process* from) {
  std::vector<Coordinator*> there;
  for (const auto& coordinator : coordinators_) {
    if (coordinator->alive() && !network_.Blocked(from, coordinator.get())) there.push_back(coordinator.get());
  }
  if (there.empty()) return nullptr;
  if (there.size() > 1 && world_->Chance(30)) return there[there.size() - 2];
  return there.back();
}

std::shared_ptr<Group> Cluster::GroupOf(const v1::WorkerOrder::Assignment& assignment) {
  auto& group = groups_[{assignment.store_port(), assignment.store_prefix()}];
  if (group == nullptr) {
    group = std::make_shared<Group>(world_, &network_, static_cast<size_t>(assignment.world_size()));
  }
  return group;
}

Teacher* Cluster::FindServer(const std::string& address) {
  const auto found =
      std::find_if(servers_.begin(), servers_.end(), [&](const auto& server) { return server->address() == address; });
  return found == servers_.end() ? nullptr : found->get();
}

void Cluster::Bury(const Process* process) {
  network_.Bury(process);
  for (const auto& [key, group] : groups_) group->Bury(process);
}

}  // namespace polystill::simulation
