// Members that are heard but do not follow their orders, and members that are slower than the others (docs/elastic.md).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/run_machine.h"
#include "corpus/plan.h"

namespace polystill::coordinator {

int RunMachine::CountHere(const std::map<std::string, Instant>& ids) const {
  return static_cast<int>(std::count_if(ids.begin(), ids.end(),
                                        [this](const auto& entry) { return worker_streams_.contains(entry.first); }));
}

void RunMachine::OnHeartbeat(Worker* worker, const v1::Heartbeat& heartbeat) {
  const bool moves = heartbeat.idle() || heartbeat.begun() > worker->begun;
  worker->begun = std::max(worker->begun, heartbeat.begun());
  if (worker->begun >= worker->assigned) {
    worker->idles.reset();
  } else if (moves && worker->idles.has_value()) {
    worker->idles = now_;
  }
  if (!heartbeat.idle() || hanging_.erase(worker->id) == 0) return;
  Say(absl::StrCat("worker ", worker->id, " (pid ", worker->pid, " on ", worker->host, ") answers again"));
  ++revision_;
  decide_due_ = true;
}

void RunMachine::Begun(Rank* rank) {
  Worker* worker = FindWorker(rank->stream);
  if (worker == nullptr) return;
  worker->begun = std::max(worker->begun, generation_->number);
  worker->idles.reset();
}

void RunMachine::GiveUpHanging() {
  std::vector<std::pair<StreamId, std::string>> hanging;
  for (const auto& [stream, worker] : workers_) {
    if (!worker.idles.has_value() || now_ - *worker.idles < kFollowWithin) continue;
    hanging.emplace_back(stream, absl::StrCat("has not begun generation ", worker.assigned));
  }
  if (generation_.has_value() && generation_->phase == Generation::Phase::kEnding &&
      generation_->first_left.has_value() && now_ - *generation_->first_left >= kFollowWithin) {
    Break("not all have left it at the boundary");
  }
  if (generation_.has_value() && generation_->phase == Generation::Phase::kBroken) {
    for (const Rank& rank : generation_->ranks) {
      if (rank.place != Rank::Place::kIn || !rank.ordered.has_value() || now_ - *rank.ordered < kFollowWithin) continue;
      hanging.emplace_back(rank.stream, absl::StrCat("has not left generation ", generation_->number));
    }
  }
  for (const auto& [stream, what] : hanging) GiveUp(stream, what);
}

void RunMachine::GiveUp(StreamId stream, const std::string& what) {
  const Worker* worker = FindWorker(stream);
  if (worker == nullptr) return;
  hanging_[worker->id] = now_;
  resting_.erase(worker->id);
  Drop(stream, absl::AbortedError(absl::StrCat("it is heard, but ", what, " within ", kFollowWithin.count() / 1000,
                                               " s of the order; it does not count as here until it answers")));
}

bool RunMachine::IsToBeWithout(const PlannedJob& planned) const {
  const auto& resting = Dispensable();
  const auto members = std::count_if(resting.begin(), resting.end(), [this](const auto& entry) {
    const auto stream = worker_streams_.find(entry.first);
    return stream != worker_streams_.end() && IsMember(workers_.at(stream->second));
  });
  return members > std::max(0, ToCome(planned) - (Here() - CountHere(resting)));
}

const std::map<std::string, Instant>& RunMachine::Dispensable() const {
  static const std::map<std::string, Instant> kNobody;
  if (resting_.empty() || !generation_.has_value()) return resting_;
  std::pair<int64_t, int64_t> theirs{-1, -1}, others{-1, -1};
  for (const Rank& rank : generation_->ranks) {
    if (rank.place == Rank::Place::kIn && !rank.agreed.empty() && !resting_.contains(rank.worker)) return resting_;
    if (rank.place != Rank::Place::kLeft || hanging_.contains(rank.worker) || suspects_.IsOut(rank.worker)) continue;
    auto& greatest = resting_.contains(rank.worker) ? theirs : others;
    greatest = std::max(greatest, rank.held);
  }
  return others.second >= 0 && others >= theirs ? resting_ : kNobody;
}

void RunMachine::CompareMembers() {
  if (now_ - compared_ < kCompareEvery) return;
  compared_ = now_;
  std::erase_if(resting_, [this](const auto& entry) { return now_ >= entry.second; });
  std::erase_if(hanging_, [this](const auto& entry) {
    return !worker_streams_.contains(entry.first) && now_ - entry.second >= kComeBackWithin;
  });
  if (!generation_.has_value()) return;
  const PlannedJob& planned = jobs_[next_job_];
  StageState* stage = FindStage(planned.job.name());
  if (stage == nullptr || planned.job.kind() != v1::Job::KIND_TRAIN) return;
  if (LookAtMembers(planned)) LeaveOutSlowest(planned, stage);
  stage->status.clear_slow_workers();
  if (generation_->ranks.size() < 2) return;
  for (const Rank& rank : generation_->ranks) {
    const Worker* worker = FindWorker(rank.stream);
    if (worker != nullptr && worker->slowness.slow()) *stage->status.add_slow_workers() = Describe(*worker);
  }
}

bool RunMachine::LookAtMembers(const PlannedJob& planned) {
  const std::vector<Rank>& ranks = generation_->ranks;
  // Towards the end there is nothing to be won.
  const bool whole = generation_->phase == Generation::Phase::kWhole && generation_->done == 0 &&
                     generation_->CountAt(Rank::Place::kIn) == ranks.size();
  if (!whole || ranks.size() < 2) return false;
  std::vector<Pace> paces;
  for (size_t i = 0; i < ranks.size(); ++i) {
    if (!ranks[i].progress.has_value() || ranks[i].progress->own_seconds() <= 0) return false;
    const corpus::Plan::Range slice =
        corpus::Plan::SliceOf(planned.job.plan().batch_size(), static_cast<int>(i), static_cast<int>(ranks.size()));
    paces.push_back({ranks[i].progress->own_seconds(), slice.last - slice.first});
  }
  const std::vector<double> ratios = RatiosToOthers(paces);
  for (size_t i = 0; i < ranks.size(); ++i) {
    Worker* worker = FindWorker(ranks[i].stream);
    if (!worker->slowness.Look(ranks[i].progress->step(), ratios[i], planned.evict_slower_than)) continue;
    ++revision_;
    Say(absl::StrCat(
        ranks[i].who,
        worker->slowness.slow()
            ? absl::StrFormat(" is slow: a step's own work takes it %.1f times as long as the others", ratios[i])
            : " is as fast as the others again"));
  }
  return true;
}

void RunMachine::LeaveOutSlowest(const PlannedJob& planned, StageState* stage) {
  if (Here() - CountHere(resting_) <= planned.fewest()) return;
  Worker* slowest = nullptr;
  for (const Rank& rank : generation_->ranks) {
    Worker* worker = FindWorker(rank.stream);
    if (!worker->slowness.IsBeyond() || resting_.contains(worker->id)) continue;
    if (slowest == nullptr || worker->slowness.ratio() > slowest->slowness.ratio()) slowest = worker;
  }
  if (slowest == nullptr) return;
  const Rank& rank = *FindRank(*slowest);
  v1::RunStatus::Eviction& eviction = *stage->status.add_evictions();
  *eviction.mutable_worker() = Describe(*slowest);
  eviction.set_generation(generation_->number);
  eviction.set_step(rank.progress->step());
  Say(
      absl::StrFormat("%s is left out from the next step boundary on: its own work takes it %.1f times as long as the "
                      "others, more than student.evict_slower_than, %g; it is asked again after %d s",
                      rank.who, slowest->slowness.ratio(), planned.evict_slower_than, kRestFor.count() / 1000));
  resting_[slowest->id] = now_ + kRestFor;
  slowest->slowness = {};
  for (const Rank& other : generation_->ranks) FindWorker(other.stream)->slowness.MeasureAnew();
  ++revision_;
}

v1::RunStatus::SlowWorker RunMachine::Describe(const Worker& worker) const {
  v1::RunStatus::SlowWorker slow;
  slow.set_rank(static_cast<int>(worker.rank));
  slow.set_worker_id(worker.id);
  slow.set_host(worker.host);
  slow.set_pid(worker.pid);
  slow.set_ratio(worker.slowness.ratio());
  return slow;
}

}  // namespace polystill::coordinator
