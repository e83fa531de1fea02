// Workers that generations are formed without (docs/elastic.md, "Who is left out").
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "coordinator/run_machine.h"
#include "runtime/utf8.h"

namespace polystill::coordinator {
namespace {

// Generations that no rank has agreed in, after which it is not by chance.
constexpr int kFutileByChance = 1;

// Of those that the status tells of.
constexpr size_t kTold = 10;

std::string HostKey(const std::string& host) { return absl::StrCat("host ", host); }

}  // namespace

int RunMachine::LeftOutHere() const {
  const auto& out = suspects_.out();
  return static_cast<int>(std::count_if(out.begin(), out.end(), [this](const auto& entry) {
    return worker_streams_.contains(entry.first) && !hanging_.contains(entry.first);
  }));
}

int RunMachine::Here() const { return static_cast<int>(workers_.size()) - CountHere(hanging_) - LeftOutHere(); }

int RunMachine::ProvenHere() const {
  return static_cast<int>(std::count_if(proven_.begin(), proven_.end(), [this](const std::string& id) {
    return worker_streams_.contains(id) && !suspects_.IsOut(id);
  }));
}

bool RunMachine::StateMayComeBack() const {
  return !proven_.empty() && ProvenHere() == 0 && now_ - proven_lost_at_ < kFirstComesWithin;
}

// Whoever applies a step has had every rank's part of it.
void RunMachine::NoteStep(int64_t step) {
  if (!generation_->agreed_step.has_value() || step <= *generation_->agreed_step) return;
  generation_->agreed_step.reset();
  proven_.clear();
  for (const Rank& rank : generation_->ranks) {
    proven_.insert(rank.worker);
    suspects_.Acquit(rank.worker);
    if (const Worker* worker = FindWorker(rank.stream)) suspects_.Acquit(HostKey(worker->host));
  }
}

void RunMachine::SayLeftOut(const std::string& what) {
  Say(what);
  left_out_.push_back(what);
  if (left_out_.size() > kTold) left_out_.erase(left_out_.begin());
  ++revision_;
}

void RunMachine::LeaveOut(const Worker& worker, int turns, const std::string& why) {
  const auto time = suspects_.Blame(worker.id, now_, turns);
  suspects_.LeaveOut(worker.id, now_ + time);
  SayLeftOut(absl::StrCat("worker ", worker.id, " (pid ", worker.pid, " on ", worker.host, ") is left out for ",
                          time.count() / 1000, " s: ", why));
}

void RunMachine::LeaveOutUnreachable(const PlannedJob& planned) {
  if (planned.job.kind() != v1::Job::KIND_TRAIN) return;
  std::vector<Worker*> members;
  bool suspect = false;
  for (const Rank& rank : generation_->ranks) {
    Worker* worker = FindWorker(rank.stream);
    if (worker == nullptr) continue;
    members.push_back(worker);
    suspect |= suspects_.TimesBlamed(worker->id) > 0;
  }
  if (futile_ <= (suspect ? 0 : kFutileByChance)) return;
  std::vector<Worker*> strangers;
  for (Worker* worker : members) {
    if (!proven_.contains(worker->id)) strangers.push_back(worker);
  }
  if (!strangers.empty() && ProvenHere() >= planned.fewest()) {
    // One half comes back before the other, so that they are told apart.
    for (size_t i = 0; i < strangers.size(); ++i) {
      LeaveOut(*strangers[i], 1 + static_cast<int>(i % 2), "with it, the others do not reach each other");
    }
    return;
  }
  // Nobody knows who it is: one after the other, and when that does not help, two at a time.
  for (const std::string& id : tried_without_) {
    const auto stream = worker_streams_.find(id);
    if (stream != worker_streams_.end() && suspects_.IsOut(id)) members.push_back(FindWorker(stream->second));
    suspects_.TakeBack(id);
  }
  tried_without_.clear();
  // Who holds what was learnt comes after those who hold nothing.
  const auto turn = [this](const Worker* worker) {
    const Rank* rank = FindRank(*worker);
    return std::tuple(suspects_.TimesBlamed(worker->id), rank != nullptr && rank->held.first > 0,
                      proven_.contains(worker->id), -worker->arrival);
  };
  std::sort(members.begin(), members.end(), [&](const Worker* a, const Worker* b) { return turn(a) < turn(b); });
  const int at_a_time = members.empty() ? 0 : 1 + suspects_.TimesBlamed(members.front()->id);
  const int count = std::min({at_a_time, Here() - planned.fewest(), static_cast<int>(members.size())});
  for (int i = 0; i < count; ++i) {
    LeaveOut(*members[i], 1, "the workers do not all reach each other");
    tried_without_.push_back(members[i]->id);
  }
}

void RunMachine::TakeBack(int count) {
  std::vector<std::string> unreachable;
  for (const auto& [id, until] : suspects_.out()) {
    if (worker_streams_.contains(id) && suspects_.TimesBlamed(id) > 0) unreachable.push_back(id);
  }
  for (const std::string& id : unreachable) {
    if (count-- > 0) suspects_.TakeBack(id);
  }
}

void RunMachine::LeaveOutNewcomer(const Worker& worker) {
  // Who was assigned something before has been at work.
  if (worker.standing.generation() > 0) return;
  const std::optional<Instant> until = suspects_.BlamedUntil(HostKey(worker.host), now_);
  if (!until.has_value()) return;
  suspects_.LeaveOut(worker.id, *until);
  Say(absl::StrCat("worker ", worker.id, " is left out for ",
                   std::chrono::ceil<std::chrono::seconds>(*until - now_).count(), " s: one has failed on ",
                   worker.host));
}

bool RunMachine::CanDoWithout(const Rank& rank) const {
  const PlannedJob& planned = jobs_[next_job_];
  if (ProvenHere() > 0) return !proven_.contains(rank.worker);
  // Where nobody has done a step yet it may be everybody's failure. Whoever has agreed was connected and ready.
  return planned.job.kind() == v1::Job::KIND_TRAIN && rank.agreed.empty() && Here() > planned.fewest();
}

void RunMachine::Dismiss(const Rank& rank, const std::string& why) {
  const Worker* worker = FindWorker(rank.stream);
  const auto time = suspects_.Blame(HostKey(worker->host), now_);
  const std::string what = absl::StrCat("failed before its first step: ", EscapeUnlessUtf8(why));
  suspects_.LeaveOut(worker->id, now_ + time);
  SayLeftOut(absl::StrCat(rank.who, " is dismissed: it ", what, "; whoever comes from ", worker->host,
                          " now is left out for ", time.count() / 1000, " s"));
  Drop(rank.stream, absl::FailedPreconditionError(absl::StrCat("this worker ", what)));
}

}  // namespace polystill::coordinator
