#include "tests/simulation/faults.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/simulation/coordinator.h"
#include "tests/simulation/teacher.h"
#include "tests/simulation/worker.h"

namespace polystill::simulation {
namespace {

using State = student_worker::Member::State;

// For a worker to come into the state in which a fault is to find it.
constexpr Millis kPatience{3000};
// When training does not go on, nothing is waited for.
constexpr Millis kAtLatest{15'000};
// Seconds after which a person ends a worker that hangs while nothing is asked of it.
constexpr int kUnasked = 60;

}  // namespace

Faults::Faults(Cluster* cluster) : cluster_(*cluster), world_(cluster->world()), last_(world_.now()) {
  const int64_t count = world_.Draw(3, 9);
  const int64_t steps = cluster_.run().first_job_steps;
  for (int64_t i = 0; i < count; ++i) {
    Fault fault{static_cast<Kind>(world_.Draw(0, static_cast<int64_t>(Kind::kScale))), std::nullopt, Millis(0), {}};
    const bool of_teacher = fault.kind == Kind::kKillTeacher || fault.kind == Kind::kStopTeacher;
    if (of_teacher && cluster_.run().servers == 0) fault.kind = Kind::kKillWorker;
    // The first three come before the first job can be done.
    if (i < 3 || world_.Chance(50)) fault.at_step = world_.Draw(0, steps - 1);
    fault.after = world_.Time(0, 4000);
    if (world_.Chance(40)) fault.when = static_cast<State>(world_.Draw(0, static_cast<int64_t>(State::kDone)));
    planned_.push_back(fault);
  }
  std::sort(planned_.begin(), planned_.begin() + 3,
            [](const Fault& a, const Fault& b) { return *a.at_step < *b.at_step; });
  // From the start, or late.
  cuts_off_ = cluster_.run().workers > 1 && world_.Chance(10);
  if (cuts_off_) {
    const bool late = world_.Chance(50);
    planned_.insert(late ? planned_.end() : planned_.begin(),
                    {Kind::kCutOffWorker, late ? std::nullopt : std::optional<int64_t>(0), world_.Time(0, 4000), {}});
  }
  // A scale is no fault.
  for (int i = 0; i < 3; ++i) {
    if (planned_[static_cast<size_t>(i)].kind == Kind::kScale)
      planned_[static_cast<size_t>(i)].kind = Kind::kKillWorker;
  }
}

void Faults::Look() {
  if (next_ == planned_.size()) return;
  const Fault& fault = planned_[next_];
  const auto waited = world_.now() - last_;
  const int64_t ahead = cluster_.history().Ahead("distilled");
  const bool due = fault.at_step.has_value() ? ahead >= *fault.at_step : waited >= fault.after;
  if (!due && waited < kAtLatest) return;
  const bool found = !fault.when.has_value() || FindVictim(fault) != nullptr;
  const bool ends = ahead + 1 >= cluster_.run().first_job_steps;
  if (!found && waited < kAtLatest + kPatience && !ends) return;
  const Fault now = fault;
  ++next_;
  last_ = world_.now();
  Happen(now);
}

Worker* Faults::FindVictim(const Fault& fault) const {
  std::vector<Worker*> victims;
  for (const auto& worker : cluster_.workers()) {
    if (!worker->alive() || worker->stopped()) continue;
    if (!fault.when.has_value() || worker->member().state() == *fault.when) victims.push_back(worker.get());
  }
  return victims.empty() ? nullptr
                         : victims[static_cast<size_t>(world_.Draw(0, static_cast<int64_t>(victims.size()) - 1))];
}

Coordinator* Faults::Newest() const {
  for (auto one = cluster_.coordinators().rbegin(); one != cluster_.coordinators().rend(); ++one) {
    if ((*one)->alive()) return one->get();
  }
  return nullptr;
}

void Faults::Open(Millis time, Deed end) {
  ++open_;
  world_.After(time, [this, end = std::move(end)] {
    --open_;
    end();
  });
}

void Faults::Happen(const Fault& fault) {
  if (fault.kind != Kind::kScale) ++count_;
  switch (fault.kind) {
    case Kind::kKillCoordinator:
    case Kind::kStopCoordinator:
    case Kind::kSecondCoordinator:
    case Kind::kReplaceStoppedCoordinator:
      return HitCoordinator(fault.kind);
    case Kind::kKillTeacher:
    case Kind::kStopTeacher:
      return HitTeacher(fault.kind);
    case Kind::kCutOffWorker:
      return CutOffOne();
    case Kind::kKillAllWorkers:
      world_.Note([] { return "FAULT: all workers are killed"; });
      for (const auto& worker : cluster_.workers()) Kill(worker.get());
      return;
    case Kind::kScale: {
      const coordinator::PlannedJob& planned = cluster_.run().jobs[0];
      const int workers = static_cast<int>(world_.Draw(planned.fewest(), planned.most()));
      world_.Note([&] { return absl::StrCat("SCALE to ", workers); });
      if (Coordinator* coordinator = Newest()) coordinator->Post(Millis(0), [=] { coordinator->Scale(workers); });
      return;
    }
    default: {
      Worker* victim = FindVictim(fault);
      if (victim == nullptr) victim = FindVictim({fault.kind, std::nullopt, Millis(0), std::nullopt});
      if (victim != nullptr) return Hit(fault.kind, victim);
      return Kill(cluster_.workers()[0].get());
    }
  }
}

void Faults::Kill(Worker* worker) {
  worker->Kill();
  Open(world_.Time(200, 8000), [worker] {
    if (!worker->alive() && !worker->dismissed()) worker->Start();
  });
}

void Faults::Slow(Worker* worker) {
  worker->Slow(static_cast<int>(world_.Draw(2, 6)));
  // Half of them for the rest of their lives.
  if (world_.Chance(50)) return;
  Open(world_.Time(2000, 30'000), [worker] { worker->Slow(1); });
}

void Faults::CutOffOne() {
  constexpr Millis kForEver = std::chrono::hours(1000);
  const auto& workers = cluster_.workers();
  const Worker* one = workers[static_cast<size_t>(world_.Draw(0, static_cast<int64_t>(workers.size()) - 1))].get();
  world_.Note([&] { return absl::StrCat("FAULT: ", one->name(), " reaches no other worker any more"); });
  for (const auto& other : workers) {
    if (other.get() != one) cluster_.network().Part(one, other.get(), kForEver);
  }
}

void Faults::Hang(Worker* worker) {
  worker->Hang();
  const auto& workers = cluster_.workers();
  const bool one = std::count_if(workers.begin(), workers.end(), [](const auto& w) { return w->hangs(); }) == 1;
  // One of all may do so for good: there is one worker more than the run needs.
  if (one && !cuts_off_ && world_.Chance(50)) return Watch(worker, worker->life(), 0);
  Open(world_.Time(1000, 60'000), [worker] { worker->Recover(); });
}

void Faults::Watch(Worker* worker, int life, int unasked) {
  if (worker->life() != life || !worker->hangs()) return;
  if (unasked >= kUnasked) {
    world_.Note([&] { return absl::StrCat(worker->id(), " hangs and is ended"); });
    return Kill(worker);
  }
  world_.After(
      Millis(1000), [this, worker, life, unasked] { Watch(worker, life, worker->IsAwaited() ? 0 : unasked + 1); },
      false);
}

void Faults::Hit(Kind kind, Worker* victim) {
  const auto note = [&](const char* what) {
    world_.Note([&] { return absl::StrCat("FAULT: ", victim->id(), " ", what); });
  };
  if (kind == Kind::kKillWorker) {
    note("is killed");
    return Kill(victim);
  }
  if (kind == Kind::kSlowWorker) {
    note("is slow");
    return Slow(victim);
  }
  if (kind == Kind::kHangWorker) {
    note("hangs");
    return Hang(victim);
  }
  if (kind == Kind::kStopWorker) {
    note("is stopped");
    victim->Stop();
    return Open(world_.Time(300, 12'000), [victim] { victim->Continue(); });
  }
  if (kind == Kind::kResetGroup && victim->in_group()) {
    note("loses the connections to its peers");
    return victim->ResetGroup();
  }
  const Millis time = world_.Time(500, 12'000);
  if (kind == Kind::kPartFromWorker) {
    note("does not reach another worker");
    const auto& workers = cluster_.workers();
    const auto* other = workers[static_cast<size_t>(world_.Draw(0, static_cast<int64_t>(workers.size()) - 1))].get();
    if (other != victim) cluster_.network().Part(victim, other, time);
    return Open(time, [] {});
  }
  if (kind == Kind::kPartFromCoordinator && Newest() != nullptr) {
    note("does not reach the coordinator");
    cluster_.network().Part(victim, Newest(), time);
    return Open(time, [] {});
  }
  const std::vector<Link*> links = cluster_.network().links();
  if (links.empty()) return;
  Link* link = links[static_cast<size_t>(world_.Draw(0, static_cast<int64_t>(links.size()) - 1))];
  world_.Note([&] { return absl::StrCat("FAULT: the stream of ", link->client->name(), " breaks"); });
  cluster_.network().Break(link, world_.Chance(30));
}

void Faults::HitCoordinator(Kind kind) {
  Coordinator* coordinator = Newest();
  world_.Note([&] { return absl::StrCat("FAULT: coordinator, kind ", static_cast<int>(kind)); });
  const Millis time = world_.Time(300, 12'000);
  if (coordinator == nullptr) return;
  if (kind == Kind::kKillCoordinator) {
    if (world_.Chance(60)) coordinator->KillSoon();
    const Millis at = world_.Chance(50) ? Millis(0) : world_.Time(0, 3000);
    Open(at, [coordinator] { coordinator->Kill(); });
    return Open(at + world_.Time(0, 8000), [this] { cluster_.StartCoordinator(); });
  }
  if (kind != Kind::kSecondCoordinator) {
    coordinator->Stop();
    Open(time, [coordinator] { coordinator->Continue(); });
  }
  if (kind != Kind::kStopCoordinator) cluster_.StartCoordinator();
}

void Faults::HitTeacher(Kind kind) {
  const auto& servers = cluster_.servers();
  Teacher* teacher = servers[static_cast<size_t>(world_.Draw(0, static_cast<int64_t>(servers.size()) - 1))].get();
  world_.Note(
      [&] { return absl::StrCat("FAULT: ", teacher->name(), kind == Kind::kKillTeacher ? " is killed" : " stops"); });
  if (kind == Kind::kStopTeacher) {
    teacher->Stop();
    return Open(world_.Time(300, 12'000), [teacher] { teacher->Continue(); });
  }
  teacher->Kill();
  Open(world_.Time(200, 8000), [teacher] {
    if (!teacher->alive()) teacher->Start();
  });
}

}  // namespace polystill::simulation
