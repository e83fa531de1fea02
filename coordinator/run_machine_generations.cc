// The generations of a job's workers: formed, left, formed again (docs/elastic.md).
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/run_machine.h"
#include "runtime/utf8.h"

namespace polystill::coordinator {

void Generation::Add(Rank rank) {
  ++at[static_cast<size_t>(rank.place)];
  ranks.push_back(std::move(rank));
}

void Generation::Move(Rank* rank, Rank::Place place) {
  --at[static_cast<size_t>(rank->place)];
  ++at[static_cast<size_t>(place)];
  rank->place = place;
}

void Generation::SetDone(Rank* rank, bool is_done) {
  if (rank->done == is_done) return;
  rank->done = is_done;
  is_done ? ++done : --done;
  if (is_done && !first_done.has_value()) first_done = rank - ranks.data();
}

void RunMachine::GoOn() {
  if (!prepared_ || next_job_ >= jobs_.size()) return;
  const PlannedJob& planned = jobs_[next_job_];
  if (generation_.has_value() && !IsOver()) {
    WantOtherWorkers();
    if (std::exchange(missing_due_, false)) TellWaiting(planned, MissingTeachers(planned));
    return;
  }
  const std::string waiting_for = WaitingFor(planned);
  TellWaiting(planned, waiting_for);
  if (waiting_for.empty()) Form(planned);
}

bool RunMachine::IsOver() const {
  return generation_->CountAt(Rank::Place::kIn) == 0 && generation_->CountAt(Rank::Place::kAwaited) == 0;
}

bool RunMachine::HasEnoughWorkers(const PlannedJob& planned) {
  if (const int missing = planned.fewest() - Here(); missing > 0) TakeBack(missing);
  const int here = Here();
  if (here < planned.fewest()) {
    last_call_.reset();
    return false;
  }
  if (generation_.has_value()) return true;
  if (!last_call_.has_value()) last_call_ = now_;
  return here >= FirstWorkers(planned) || now_ - *last_call_ >= planned.last_call;
}

std::string RunMachine::WaitingFor(const PlannedJob& planned) {
  std::vector<std::string> missing;
  if (!HasEnoughWorkers(planned)) {
    const int wanted = generation_.has_value() ? planned.fewest() : FirstWorkers(planned);
    missing.push_back(absl::StrCat(Here(), " of ", wanted, " workers"));
    if (const int out = LeftOutHere(); out > 0) absl::StrAppend(&missing.back(), " (", out, " left out)");
  }
  for (const std::string& name : planned.teachers) {
    // One that comes later is told to the workers.
    const Teacher* teacher = FindTeacher(name);
    const int replicas = generation_.has_value() || teacher == nullptr ? 1 : teacher->spec.replicas();
    if (std::string wait = WaitingForTeacher(name, replicas); !wait.empty()) missing.push_back(std::move(wait));
  }
  if (StateMayComeBack()) missing.push_back("workers that hold the last steps");
  if (now_ < form_after_) missing.push_back("workers that reach each other");
  return absl::StrJoin(missing, ", ");
}

void RunMachine::TellWaiting(const PlannedJob& planned, const std::string& waiting_for) {
  StageState* stage = FindStage(planned.job.name());
  if (stage == nullptr || stage->status.waiting_for() == waiting_for) return;
  stage->status.set_waiting_for(waiting_for);
  ++revision_;
}

int RunMachine::WantedWorkers(const PlannedJob& planned) const {
  if (planned.job.kind() != v1::Job::KIND_TRAIN || wanted_workers_ == 0) return planned.most();
  return std::clamp(wanted_workers_, planned.fewest(), planned.most());
}

int RunMachine::FirstWorkers(const PlannedJob& planned) const {
  return std::min(planned.workers, WantedWorkers(planned));
}

std::vector<Worker*> RunMachine::Pick(const PlannedJob& planned) {
  std::vector<Worker*> picked;
  for (auto& [stream, worker] : workers_) {
    if (!IsAway(worker)) picked.push_back(&worker);
  }
  const auto& resting = Dispensable();
  const auto turn = [&](const Worker* worker) {
    return std::tuple(resting.contains(worker->id), !IsMember(*worker), worker->arrival);
  };
  std::sort(picked.begin(), picked.end(), [&](const Worker* a, const Worker* b) { return turn(a) < turn(b); });
  picked.resize(static_cast<size_t>(ToCome(planned)));
  return picked;
}

// Those that rest are left out where there are enough others.
int RunMachine::ToCome(const PlannedJob& planned) const {
  const int fit = Here() - CountHere(Dispensable());
  return std::min(WantedWorkers(planned), std::max(fit, std::min(Here(), planned.fewest())));
}

v1::WorkerOrder::Assignment RunMachine::AssignmentOf(const PlannedJob& planned) {
  v1::WorkerOrder::Assignment assignment;
  assignment.set_term(config_.term);
  assignment.set_generation(last_generation_);
  assignment.set_store_host(config_.store_host);
  assignment.set_store_port(config_.store_port);
  assignment.set_store_prefix(StorePrefixOf(last_generation_));
  *assignment.mutable_job() = planned.job;
  if (const auto& admitted = checkpoints_[planned.job.name()]; !admitted.empty()) {
    assignment.set_checkpoint(admitted.back().path);
    assignment.set_checkpoint_generation(admitted.back().generation);
    assignment.set_checkpoint_step(admitted.back().step);
  }
  return assignment;
}

void RunMachine::Form(const PlannedJob& planned) {
  generation_.has_value() ? KeepSums() : BeginJob(planned);
  if (generation_.has_value()) LeaveOutUnreachable(planned);
  // Until the ranks agree, or one of them is lost: the next one comes later each time.
  form_after_ = now_ + (futile_ == 0 ? std::chrono::milliseconds(0)
                                     : std::min(kFormAgainAfter * (1 << std::min(futile_ - 1, 10)), kFormAgainWithin));
  ++futile_;
  const std::vector<Worker*> members = Pick(planned);
  Generation next{++last_generation_};
  RecordGeneration record{{next.number, planned.job.name(), {}}};
  for (const Worker* worker : members) record.generation.members.push_back(worker->id);
  actions_.push_back(std::move(record));
  told_ = ReplicaChoice(EndpointsOf(planned));
  tell_due_ = false;
  v1::WorkerOrder order;
  *order.mutable_assignment() = AssignmentOf(planned);
  order.mutable_assignment()->set_world_size(static_cast<int>(members.size()));
  for (size_t rank = 0; rank < members.size(); ++rank) {
    members[rank]->rank = rank;
    members[rank]->assigned = next.number;
    if (!members[rank]->idles.has_value()) members[rank]->idles = now_;
    next.Add({members[rank]->id, members[rank]->stream, WhoIs(planned, rank, *members[rank])});
    order.mutable_assignment()->set_rank(static_cast<int>(rank));
    next.ranks.back().replicas = told_.For(members[rank]->id, order.mutable_assignment()->mutable_teachers());
    actions_.push_back(SendToWorker{members[rank]->stream, order});
  }
  generation_ = std::move(next);
  TellMembers();
  Say(absl::StrCat(planned.job.name(), ": generation ", last_generation_, ": world of ", members.size()));
}

void RunMachine::BeginJob(const PlannedJob& planned) {
  StageState* stage = FindStage(planned.job.name());
  if (stage == nullptr) return;
  BeginStage(stage);
  const auto& admitted = checkpoints_[planned.job.name()];
  if (!admitted.empty()) stage->status.set_done(admitted.back().step);
}

std::string RunMachine::WhoIs(const PlannedJob& planned, size_t rank, const Worker& worker) {
  return absl::StrCat(planned.job.name(), ": worker ", rank, " (pid ", worker.pid, " on ", worker.host, ")");
}

void RunMachine::WantOtherWorkers() {
  const PlannedJob& planned = jobs_[next_job_];
  if (generation_->phase != Generation::Phase::kWhole) return;
  const int members = static_cast<int>(generation_->ranks.size());
  // Towards the end nobody comes to a boundary any more.
  if (generation_->CountAt(Rank::Place::kIn) < generation_->ranks.size() || generation_->done > 0) return;
  // Who can be done without is known once somebody has agreed.
  if (!resting_.empty() && !generation_->first_agreed.has_value()) return;
  const int to_come = ToCome(planned);
  if (members == to_come && !IsToBeWithout(planned)) return;
  generation_->phase = Generation::Phase::kEnding;
  OrderRegroup(/*at_boundary=*/true, absl::StrCat("to go on with ", to_come, " workers"));
}

void RunMachine::OrderRegroup(bool at_boundary, const std::string& reason) {
  Say(absl::StrCat("generation ", generation_->number, at_boundary ? " ends at a step boundary: " : " ends: ", reason));
  for (Rank& rank : generation_->ranks) {
    if (rank.place == Rank::Place::kIn) OrderRegroup(&rank, at_boundary, reason);
  }
}

void RunMachine::OrderRegroup(Rank* rank, bool at_boundary, const std::string& reason) {
  v1::WorkerOrder order;
  auto& regroup = *order.mutable_regroup();
  regroup.set_term(config_.term);
  regroup.set_generation(generation_->number);
  regroup.set_at_boundary(at_boundary);
  regroup.set_reason(EscapeUnlessUtf8(reason));
  if (!at_boundary) rank->ordered = now_;
  actions_.push_back(SendToWorker{rank->stream, std::move(order)});
}

void RunMachine::Break(const std::string& reason) {
  if (generation_->phase == Generation::Phase::kBroken) return Say(reason);
  generation_->phase = Generation::Phase::kBroken;
  OrderRegroup(/*at_boundary=*/false, reason);
}

void RunMachine::OnAgreed(Rank* rank, const v1::WorkerMessage::Agreed& agreed) {
  Begun(rank);
  futile_ = 0;
  form_after_ = now_;
  rank->agreed = agreed.digest();
  tried_without_.clear();
  if (!generation_->first_agreed.has_value()) {
    generation_->first_agreed = rank - generation_->ranks.data();
    generation_->agreed_step = agreed.step();
  }
  if (const Rank& first = generation_->ranks[*generation_->first_agreed]; first.agreed != rank->agreed) {
    return End(v1::RunStatus::STATE_FAILED, absl::StrCat("replicas apart: ", first.who, " agreed on ", first.agreed,
                                                         ", but ", rank->who, " on ", rank->agreed));
  }
  if (rank != generation_->ranks.data()) return;
  Say(absl::StrCat("generation ", generation_->number, " goes on after step ", agreed.step(), " of ",
                   agreed.from_checkpoint() ? "the checkpoint of " : "", "generation ", agreed.from_generation()));
}

void RunMachine::OnInterrupted(Rank* rank, const absl::Status& why) {
  generation_->Move(rank, Rank::Place::kLeft);
  generation_->SetDone(rank, false);
  // At a boundary the others leave by themselves.
  if (!generation_->first_left.has_value()) generation_->first_left = now_;
  if (why.ok() && generation_->phase == Generation::Phase::kEnding) return;
  Break(absl::StrCat(rank->who, " has left it", why.message().empty() ? "" : ": ", why.message()));
}

void RunMachine::AwaitMembers() {
  const StateStore::Generation& last = config_.generation;
  if (next_job_ >= jobs_.size() || last.members.empty() || last.job != jobs_[next_job_].job.name()) return;
  BeginJob(jobs_[next_job_]);
  generation_ = Generation{last.number};
  for (const std::string& id : last.members) {
    generation_->Add({id, 0, absl::StrCat(last.job, ": worker ", id), Rank::Place::kAwaited});
  }
  TellMembers();
  for (auto& [stream, worker] : workers_) ComeBack(&worker);
}

void RunMachine::ComeBack(Worker* worker) {
  if (!generation_.has_value() || generation_->CountAt(Rank::Place::kAwaited) == 0) return;
  for (size_t i = 0; i < generation_->ranks.size(); ++i) {
    Rank& rank = generation_->ranks[i];
    if (rank.place != Rank::Place::kAwaited || rank.worker != worker->id) continue;
    if (worker->standing.state_generation() > 0) proven_.insert(worker->id);
    worker->rank = i;
    rank.stream = worker->stream;
    rank.who = WhoIs(jobs_[next_job_], i, *worker);
    const bool works = worker->standing.working() && worker->standing.generation() == generation_->number;
    generation_->Move(&rank, works ? Rank::Place::kIn : Rank::Place::kLeft);
    if (works) {
      // It may have been assigned, and never have begun.
      worker->assigned = generation_->number;
      worker->idles = now_;
    }
    if (!works) {
      Break(absl::StrCat(rank.who, " had left it"));
    } else if (generation_->phase == Generation::Phase::kBroken) {
      OrderRegroup(&rank, /*at_boundary=*/false, "other members are gone");
    } else {
      if (!told_.empty()) TellTeachers(&rank);
      Say(absl::StrCat(rank.who, " is still in generation ", generation_->number));
    }
  }
}

void RunMachine::GiveUpAwaited() {
  if (!generation_.has_value() || generation_->number != config_.generation.number) return;
  const bool none_came = generation_->CountAt(Rank::Place::kAwaited) == generation_->ranks.size();
  const std::chrono::milliseconds patience = none_came ? kFirstComesWithin : kComeBackWithin;
  if (now_ - began_ < patience) return;
  for (Rank& rank : generation_->ranks) {
    if (rank.place != Rank::Place::kAwaited) continue;
    generation_->Move(&rank, Rank::Place::kGone);
    Break(absl::StrCat(rank.who, " did not come back within ", patience.count() / 1000, " s"));
  }
}

}  // namespace polystill::coordinator
