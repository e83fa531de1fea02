#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "student_worker/member.h"
#include "tests/simulation/cluster.h"
#include "tests/simulation/group.h"

namespace polystill::simulation {

// A worker process around the real Member: its stream to a coordinator, and the thread that trains, each of whose waits
// is an event of its own.
class Worker final : public Process {
 public:
  Worker(Cluster* cluster, int number);

  void Start();
  void Kill() override;
  // An order came on `link`.
  void Hear(Link* link, const v1::WorkerOrder& order);

  const student_worker::Member& member() const { return *member_; }
  bool in_group() const { return group_ != nullptr; }
  void ResetGroup() { group_->Reset(); }
  bool dismissed() const { return dismissed_; }
  // From now on its steps take so many times as long.
  void Slow(int times) { times_ = times; }
  int times() const { return times_; }
  // The thread that trains does nothing any more, while orders are read and heartbeats sent.
  void Hang() { hangs_ = alive(); }
  void Recover();
  bool hangs() const { return hangs_; }
  // It hangs, and was ordered something that it does not do.
  bool IsAwaited() const;
  const std::string& id() const { return id_; }

 private:
  using Member = student_worker::Member;

  // Its stream.
  void Connect();
  void Lost(const Link* link);
  void Say(const v1::WorkerMessage& message);
  void Beat();
  void Obey(const v1::WorkerOrder& order);

  // What the thread that trains does: now, or when it hangs no more.
  void Train(Deed deed);
  // `Then` goes on in this generation only, and leaves it when that is ordered.
  void Then(Millis delay, void (Worker::*next)());
  void Collective(const Share& share, void (Worker::*next)(const Shares&));
  void Look();
  void Leave(const absl::Status& why);
  void Fail(const absl::Status& why);
  void Gather();
  void Choose(const Shares& shares);
  void SendState();
  void Receive(const Shares& shares);
  void TakeOver(ModelState state);
  void SwapIn();
  void Compare();
  void AllAgreed(const Shares& shares);
  void Work();
  void SecondBucket(const Shares& shares);
  void Reduced(const Shares& shares);
  void Apply();
  void TellApplying();
  void AfterStep();
  void RollCalled(const Shares& shares);
  void WriteCheckpoint();
  void Finish();
  void SayDone();
  void EndEvaluation();
  void TellProgress();
  bool HasLabels() const;
  History::Part part() const;
  const v1::Job& job() const { return member_->assignment().job(); }

  Cluster& cluster_;
  const Bugs& bugs_;
  std::optional<Member> member_;
  std::string id_;
  bool dismissed_ = false;

  Link* link_ = nullptr;
  bool welcome_ = false;
  // Said last: after a reconnection some of it is said again, since nobody knows what had arrived.
  std::deque<v1::WorkerMessage> said_;
  // The greatest term and generation that it should obey, as the world knows them.
  int64_t seen_term_ = 0;
  int64_t seen_generation_ = 0;

  std::shared_ptr<Group> group_;
  bool hangs_ = false;
  std::deque<Deed> hanging_;
  int times_ = 1;
  // Of the generation under way: what waits for an earlier one is nothing any more.
  int64_t epoch_ = 0;
  bool busy_ = false;
  ModelState state_;
  ModelState next_state_;
  std::vector<int64_t> positions_;
  // Calls that had ended whole before the step under way.
  size_t whole_before_ = 0;
  bool labelled_ = true;
  int writing_ = 0;
  student_worker::Source source_;
};

}  // namespace polystill::simulation
