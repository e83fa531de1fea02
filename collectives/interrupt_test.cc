// A group that is left at once, though a peer hangs.
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "collectives/background.h"
#include "collectives/group.h"
#include "collectives/rank_processes.h"
#include "collectives/reducer.h"

namespace polystill::collectives {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kAborted = 10 + static_cast<int>(absl::StatusCode::kAborted);
constexpr milliseconds kLeaveWithin(250);  // 100 are promised on a machine that has nothing else to do

void Say(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

int Exit(const absl::Status& status) {
  if (!status.ok()) Say(std::string(status.message()));
  return status.ok() ? 0 : 10 + static_cast<int>(status.code());
}

// Of a rank that did not leave as fast as it must.
int TooSlow(Clock::duration took) {
  return Exit(absl::DeadlineExceededError(absl::StrCat(std::chrono::duration<double>(took).count(), " s")));
}

// The test's order to leave: a line on stdin would need a pipe; the argument says after how long it comes.
struct Order {
  explicit Order(const std::string& argument) : after(std::stoi(argument)) {}
  // Requests `source` once the time has passed since `begin`.
  void Give(std::stop_source source) {
    thread = std::jthread([this, source]() mutable {
      std::this_thread::sleep_for(after);
      given_at = Clock::now();
      source.request_stop();
    });
  }
  milliseconds after;
  std::atomic<Clock::time_point> given_at = Clock::time_point::max();
  std::jthread thread;
};

// Survivors form again, without the rank that hangs, and add up.
absl::Status FormAgain(Group::Options options, int missing) {
  options.store_prefix = "gen/2";
  options.interrupt = {};
  if (options.rank > missing) --options.rank;
  --options.world_size;
  auto group = Group::Create(options);
  if (!group.ok()) return group.status();
  const at::Tensor sum = at::ones({1000}, at::kDouble) * (options.rank + 1.0);
  if (const auto status = (*group)->AllReduceSum(sum); !status.ok()) return status;
  const int n = options.world_size;
  if (!sum.eq(n * (n + 1) / 2.0).all().item<bool>()) return absl::InternalError("wrong sum");
  Say("again");
  return absl::OkStatus();
}

// Works until `step` fails; then it must have been an order, not older than kLeaveWithin, and the old group must go as
// fast. Rank 1 hangs as soon as all are at work; when it wakes up, others have gone before its order comes.
template <typename Step>
int LeaveAtAnOrder(Group::Options options, const std::string& argument, Step step) {
  std::stop_source interrupt;
  Order order(argument);
  options.interrupt = interrupt.get_token();
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  absl::Status status;
  for (int i = 0; status.ok(); ++i) {
    status = step(group->get());
    if (i != 3) continue;
    Say("running");
    order.Give(interrupt);
  }
  if (!absl::IsAborted(status)) return Exit(status);
  const Clock::time_point failed_at = Clock::now();
  if (options.rank == 1)
    return order.given_at.load() < failed_at - kLeaveWithin ? TooSlow(failed_at - order.given_at.load()) : 0;
  if (order.given_at.load() > failed_at)
    return Exit(absl::InternalError(absl::StrCat("before the order: ", status.message())));
  if (failed_at - order.given_at.load() > kLeaveWithin) return TooSlow(failed_at - order.given_at.load());
  if (!absl::IsAborted((*group)->AllReduceSum(at::ones({1})))) return Exit(absl::InternalError("goes on"));
  step = nullptr;
  group->reset();
  if (Clock::now() - failed_at > kLeaveWithin) return TooSlow(Clock::now() - failed_at);
  return Exit(FormAgain(options, 1));
}

int AllReduceRank(const Group::Options& options, const std::string& argument) {
  const at::Tensor sum = at::zeros({1'000'000}, at::kDouble);
  std::function<absl::Status(Group*)> step = [&](Group* group) { return group->AllReduceSum(sum); };
  return LeaveAtAnOrder(options, argument, step);
}

// More than the sockets of a rank that hangs take: half of it is sent when the order comes.
int BroadcastRank(const Group::Options& options, const std::string& argument) {
  const at::Tensor much = at::zeros({8'000'000}, at::kDouble);
  std::function<absl::Status(Group*)> step = [&](Group* group) { return group->Broadcast(much, 0); };
  return LeaveAtAnOrder(options, argument, step);
}

int BackwardRank(const Group::Options& options, const std::string& argument) {
  const at::Tensor weight = at::ones({5'000'000}, at::kDouble).set_requires_grad(true);  // more than one bucket
  const at::Tensor other = at::ones({1'000'000}, at::kDouble).set_requires_grad(true);
  std::unique_ptr<Reducer> reducer;
  std::function<absl::Status(Group*)> step = [&, first = true](Group* group) mutable -> absl::Status {
    if (std::exchange(first, false)) {
      auto made = Reducer::Create({weight, other}, {}, group);
      if (!made.ok()) return made.status();
      reducer = *std::move(made);
    }
    const absl::Status status = reducer->Backward(weight.sum() + other.sum());
    if (!status.ok()) reducer.reset();
    return status;
  };
  return LeaveAtAnOrder(options, argument, step);
}

// Rank 1 never comes.
int JoinRank(Group::Options options, const std::string& argument) {
  if (options.rank == 1) {
    Say("running");
    std::this_thread::sleep_for(std::chrono::hours(1));
  }
  std::stop_source interrupt;
  Order order(argument);
  options.interrupt = interrupt.get_token();
  order.Give(interrupt);
  Say("running");
  const auto group = Group::Create(options);
  if (!absl::IsAborted(group.status())) return Exit(absl::InternalError("joined"));
  if (Clock::now() - order.given_at.load() > kLeaveWithin) return TooSlow(Clock::now() - order.given_at.load());
  if (CountInBackground() != 1) return Exit(absl::InternalError("the join that was given up is not counted"));
  return Exit(FormAgain(options, 1));
}

// Steps without end.
int EndlessRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const at::Tensor sum = at::zeros({1'000'000}, at::kDouble);
  for (int step = 0;; ++step) {
    if (const auto status = (*group)->AllReduceSum(sum); !status.ok()) return Exit(status);
    if (step == 3) Say("running");
  }
}

void ExpectSurvivorsFormAgain(const std::string& function) {
  RankProcesses ranks(function, 3, "1500");
  for (int rank = 0; rank < 3; ++rank) ASSERT_EQ(ranks.ReadLine(rank), "running") << rank;
  ranks.Stop(1);
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ranks.ReadLine(rank), "again") << rank;
    EXPECT_EQ(ranks.Wait(rank), 0) << rank;
  }
}

TEST(Interrupt, EndsAnAllReduceWithAPeerThatHangs) { ExpectSurvivorsFormAgain("all_reduce"); }
TEST(Interrupt, EndsABroadcastToAPeerThatHangs) { ExpectSurvivorsFormAgain("broadcast"); }
TEST(Interrupt, EndsABackwardPassWithAPeerThatHangs) { ExpectSurvivorsFormAgain("backward"); }
TEST(Interrupt, EndsAJoinWithAPeerThatDoesNotCome) { ExpectSurvivorsFormAgain("join"); }

TEST(Interrupt, APeerThatWakesUpLeavesToo) {
  RankProcesses ranks("all_reduce", 3, "1500");
  for (int rank = 0; rank < 3; ++rank) ASSERT_EQ(ranks.ReadLine(rank), "running") << rank;
  ranks.Stop(1);
  for (const int rank : {0, 2}) EXPECT_EQ(ranks.Wait(rank), 0) << rank;
  ranks.Continue(1);
  EXPECT_EQ(ranks.Wait(1), 0) << ranks.ReadLine(1);
}

TEST(Interrupt, AKilledPeerNeedsNoOrder) {
  RankProcesses ranks("endless", 3);
  for (int rank = 0; rank < 3; ++rank) ASSERT_EQ(ranks.ReadLine(rank), "running") << rank;
  ranks.Kill(1);
  for (const int rank : {0, 2}) EXPECT_EQ(ranks.Wait(rank), kAborted) << rank;
}

TEST(Interrupt, AWorldOfOneIsInterruptedToo) {
  std::stop_source interrupt;
  Group::Options options;
  options.interrupt = interrupt.get_token();
  auto group = Group::Create(options);
  ASSERT_TRUE(group.ok()) << group.status();
  const at::Tensor weight = at::ones({3}).set_requires_grad(true);
  auto reducer = Reducer::Create({weight}, {}, group->get());
  ASSERT_TRUE(reducer.ok()) << reducer.status();
  EXPECT_TRUE((*reducer)->Backward(weight.sum()).ok());
  interrupt.request_stop();
  EXPECT_EQ((*group)->AllReduceSum(at::ones({1})).code(), absl::StatusCode::kAborted);
  EXPECT_EQ((*reducer)->Backward(weight.sum()).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(Group::Create(options).status().code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace polystill::collectives

int main(int argc, char** argv) {
  using namespace polystill::collectives;
  return RankTestMain(argc, argv,
                      {{"all_reduce", AllReduceRank},
                       {"broadcast", BroadcastRank},
                       {"backward", BackwardRank},
                       {"join", JoinRank},
                       {"endless", EndlessRank}});
}
