#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <future>
#include <thread>

#include "collectives/group.h"
#include "collectives/rank_processes.h"
#include "collectives/reducer.h"
#include "collectives/store_server.h"

namespace polystill::collectives {
namespace {

using Clock = std::chrono::steady_clock;

// A rank exits with 0, or with 10 + its status code; the message goes to the test.
int Exit(const absl::Status& status) {
  if (status.ok()) return 0;
  std::printf("%s\n", std::string(status.message()).c_str());
  return 10 + static_cast<int>(status.code());
}

int ExpectThat(bool holds, const char* what) { return holds ? 0 : Exit(absl::InternalError(what)); }

// Sums that need float64: in float32 the rank would be lost beside 2^50.
int SumRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const double big = 0x1p50;
  const at::Tensor sum = at::full({1000}, big + options.rank, at::kDouble);
  if (const auto status = (*group)->AllReduceSum(sum); !status.ok()) return Exit(status);
  const int n = options.world_size;
  if (!sum.eq(n * big + n * (n - 1) / 2).all().item<bool>()) return Exit(absl::InternalError("wrong sum"));
  const auto gathered = (*group)->AllGather(std::string(options.rank, 'x'));
  if (!gathered.ok()) return Exit(gathered.status());
  for (int rank = 0; rank < n; ++rank) {
    if ((*gathered)[rank] != std::string(rank, 'x')) return Exit(absl::InternalError("wrong bytes"));
  }
  return 0;
}

// Loss of rank r: (r + 1) * sum(a) + sum(b * b) over slices; its gradients are known.
int ReduceRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const at::Tensor a = at::zeros({300, 1000}, at::kDouble).set_requires_grad(true);  // 2.4 MB: more than one bucket
  const at::Tensor b = at::full({7}, 0.1, at::kDouble).set_requires_grad(true);
  const at::Tensor c = at::ones({600, 1000}, at::kDouble).set_requires_grad(true);
  auto reducer = Reducer::Create({a, b, c}, {}, group->get());
  if (!reducer.ok()) return Exit(reducer.status());
  if ((*reducer)->buckets() < 2) return Exit(absl::InternalError("expected more than one bucket"));
  const int n = options.world_size;
  for (int step = 0; step < 5; ++step) {
    const at::Tensor loss = a.sum() * (options.rank + 1.0) + (b * b).sum() + c.sum() * (step + 1.0);
    if (const auto status = (*reducer)->Backward(loss); !status.ok()) return Exit(status);
    const bool right = a.grad().eq(n * (n + 1) / 2.0).all().item<bool>() &&
                       (b.grad() - n * 0.2).abs().max().item<double>() < 1e-15 &&
                       c.grad().eq(n * (step + 1.0)).all().item<bool>();
    if (const int failed = ExpectThat(right, "wrong gradient")) return failed;
  }
  return 0;
}

// Rank r takes its step in r + 1 pieces, more than one bucket each; then steps of one piece follow.
int AccumulateRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const at::Tensor a = at::zeros({300, 1000}, at::kDouble).set_requires_grad(true);
  const at::Tensor b = at::full({7}, 0.5, at::kDouble).set_requires_grad(true);
  auto reducer = Reducer::Create({a, b}, {}, group->get());
  if (!reducer.ok()) return Exit(reducer.status());
  const int n = options.world_size;
  for (int step = 0; step < 5; ++step) {
    const int pieces = step % 2 == 0 ? options.rank + 1 : 1;
    for (int piece = 1; piece < pieces; ++piece) {
      if (const auto status = (*reducer)->Accumulate(a.sum() + (b * b).sum()); !status.ok()) return Exit(status);
    }
    if (const auto status = (*reducer)->Backward(a.sum() + (b * b).sum()); !status.ok()) return Exit(status);
    const double expected = step % 2 == 0 ? n * (n + 1) / 2.0 : n;
    const bool right = a.grad().eq(expected).all().item<bool>() && b.grad().eq(expected).all().item<bool>();
    if (const int failed = ExpectThat(right, "wrong gradient")) return failed;
  }
  return 0;
}

// Each rank looks up rows of its own and one that all share, the last rank none in every second step; what a step sums
// up is gone in the next. In pieces, too.
int TableRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const int n = options.world_size;
  const at::Tensor table = at::ones({50, 3}, at::kDouble).set_requires_grad(true);
  const at::Tensor weight = at::ones({3}, at::kDouble).set_requires_grad(true);
  auto reducer = Reducer::Create({weight}, {table}, group->get());
  if (!reducer.ok()) return Exit(reducer.status());
  for (int step = 0; step < 4; ++step) {
    const auto rows_of = [&](int rank) -> std::vector<int64_t> {
      if (step % 2 == 1 && rank == n - 1) return {};
      return {7, 10 + rank + step, 7};
    };
    const auto loss_of = [&](int rank) {
      const bool sparse = step != 3 || rank > 0;  // a rank with many tokens has a dense gradient
      return (at::embedding(table, at::tensor(rows_of(rank), at::kLong), -1, false, sparse) * weight * (rank + 1.0))
          .sum();
    };
    if (step >= 2) {
      if (const auto status = (*reducer)->Accumulate(loss_of(options.rank)); !status.ok()) return Exit(status);
    }
    if (const auto status = (*reducer)->Backward(loss_of(options.rank)); !status.ok()) return Exit(status);
    const at::Tensor expected = at::zeros({50, 3}, at::kDouble);
    for (int rank = 0; rank < n; ++rank) {
      for (const int64_t row : rows_of(rank)) expected[row] += (step >= 2 ? 2.0 : 1.0) * (rank + 1.0);
    }
    const bool right =
        !table.grad().is_sparse() && table.grad().equal(expected) && weight.grad().equal(expected.sum(0));
    if (const int failed = ExpectThat(right, "wrong gradient")) return failed;
    const at::NoGradGuard no_grad;
    table.mutable_grad().mul_(0.5);  // as an optimiser may that clips
  }
  return 0;
}

// An empty slice joins with a loss of zeros.
int EmptySliceRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const at::Tensor weight = at::ones({4}, at::kDouble).set_requires_grad(true);
  auto reducer = Reducer::Create({weight}, {}, group->get());
  if (!reducer.ok()) return Exit(reducer.status());
  const int64_t rows = options.rank == 0 ? 3 : 0;
  const at::Tensor loss = (at::ones({3, 4}, at::kDouble).narrow(0, 0, rows) * weight).sum();
  if (const auto status = (*reducer)->Backward(loss); !status.ok()) return Exit(status);
  return ExpectThat(weight.grad().eq(3.0).all().item<bool>(), "wrong gradient");
}

// Steps without end, until a peer dies.
int EndlessRank(const Group::Options& options, const std::string&) {
  auto group = Group::Create(options);
  if (!group.ok()) return Exit(group.status());
  const at::Tensor weight = at::ones({500'000}, at::kDouble).set_requires_grad(true);
  const at::Tensor table = at::ones({500'000, 2}, at::kDouble).set_requires_grad(true);
  auto reducer = Reducer::Create({weight}, {table}, group->get());
  if (!reducer.ok()) return Exit(reducer.status());
  const at::Tensor ids = at::arange(1'000);
  for (int step = 0;; ++step) {
    const at::Tensor loss = weight.sum() + at::embedding(table, ids, -1, false, /*sparse=*/true).sum();
    if (const auto status = (*reducer)->Backward(loss); !status.ok()) return Exit(status);
    if (step == 3) {
      std::printf("running\n");
      std::fflush(stdout);
    }
  }
}

void ExpectAllPass(const std::string& function, int world_size) {
  RankProcesses ranks(function, world_size);
  for (int rank = 0; rank < world_size; ++rank) {
    EXPECT_EQ(ranks.Wait(rank), 0) << "rank " << rank << ": " << ranks.ReadLine(rank);
  }
}

class WorldSizes : public testing::TestWithParam<int> {};
TEST_P(WorldSizes, SumsAreExactInFloat64) { ExpectAllPass("sum", GetParam()); }
TEST_P(WorldSizes, GradientsAreSummedNotAveraged) { ExpectAllPass("reduce", GetParam()); }
TEST_P(WorldSizes, PartsOfAStepAreAddedUp) { ExpectAllPass("accumulate", GetParam()); }
TEST_P(WorldSizes, OnlyTouchedRowsOfTablesAreSummed) { ExpectAllPass("table", GetParam()); }
TEST_P(WorldSizes, AnEmptySliceJoins) { ExpectAllPass("empty", GetParam()); }
INSTANTIATE_TEST_SUITE_P(Ranks, WorldSizes, testing::Values(1, 2, 3));

TEST(Group, AKilledRankAbortsTheOthersWithinSeconds) {
  RankProcesses ranks("endless", 3);
  for (int rank = 0; rank < 3; ++rank) ASSERT_EQ(ranks.ReadLine(rank), "running");
  ranks.Kill(1);
  const auto start = Clock::now();
  for (const int survivor : {0, 2}) {
    EXPECT_EQ(ranks.Wait(survivor), 10 + static_cast<int>(absl::StatusCode::kAborted));
    const std::string message = ranks.ReadLine(survivor);
    EXPECT_NE(message.find("rank " + std::to_string(survivor) + " of 3"), std::string::npos) << message;
    EXPECT_NE(message.find("127.0.0.1"), std::string::npos) << message;
  }
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(5));
}

TEST(Group, AWorldOfOneNeedsNoStore) {
  auto group = Group::Create({});
  ASSERT_TRUE(group.ok()) << group.status();
  EXPECT_EQ(*(*group)->AllGather("ab"), std::vector<std::string>{"ab"});
}

TEST(Group, NamesAHostThatIsNotThisMachines) {
  Group::Options options;
  options.host = "host.invalid";
  const auto group = Group::Create(options);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(group.status().message().find("host.invalid"), absl::string_view::npos) << group.status();
}

TEST(Group, NamesAStoreThatDoesNotAnswer) {
  Group::Options options;
  options.world_size = 2;
  options.store_host = "127.0.0.1";
  options.store_port = 1;
  options.timeout = std::chrono::milliseconds(500);
  const auto group = Group::Create(options);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kAborted);
  EXPECT_NE(group.status().message().find("127.0.0.1:1"), absl::string_view::npos) << group.status();
}

TEST(Reducer, RefusesALossThatLeavesAParameterOut) {
  auto group = Group::Create({});
  ASSERT_TRUE(group.ok());
  const at::Tensor used = at::ones({3}).set_requires_grad(true);
  const at::Tensor unused = at::ones({3}).set_requires_grad(true);
  auto reducer = Reducer::Create({used, unused}, {}, group->get());
  ASSERT_TRUE(reducer.ok()) << reducer.status();
  EXPECT_EQ((*reducer)->Backward(used.sum()).code(), absl::StatusCode::kInternal);
}

TEST(Reducer, RefusesALossThatLeavesATableOut) {
  auto group = Group::Create({});
  ASSERT_TRUE(group.ok());
  const at::Tensor used = at::ones({3}).set_requires_grad(true);
  const at::Tensor table = at::ones({3, 2}).set_requires_grad(true);
  auto reducer = Reducer::Create({used}, {table}, group->get());
  ASSERT_TRUE(reducer.ok()) << reducer.status();
  EXPECT_EQ((*reducer)->Backward(used.sum()).code(), absl::StatusCode::kInternal);
}

TEST(Reducer, AnErrorOfItsOwnIsNoPeers) {
  auto group = Group::Create({});
  ASSERT_TRUE(group.ok());
  const at::Tensor weight = at::ones({3}).set_requires_grad(true);
  auto reducer = Reducer::Create({weight}, {}, group->get());
  ASSERT_TRUE(reducer.ok()) << reducer.status();
  // exp() keeps its result for its own backward pass, which finds that it was written over.
  const at::Tensor result = weight.exp();
  const at::Tensor loss = result.sum();
  {
    const at::NoGradGuard no_grad;
    result.add_(1);
  }
  const absl::Status status = (*reducer)->Backward(loss);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_NE(status.message().find("inplace"), absl::string_view::npos) << status;
}

TEST(StoreServer, IsReachedOnIpv6) {
  auto store = StoreServer::Start("[::1]");
  if (!store.ok()) {  // a machine without an IPv6 loopback: it is told, by name
    EXPECT_NE(store.status().message().find("::1"), absl::string_view::npos) << store.status();
    return;
  }
  using MaybeGroup = absl::StatusOr<std::unique_ptr<Group>>;
  std::vector<std::future<MaybeGroup>> ranks;
  for (int rank = 0; rank < 2; ++rank) {
    Group::Options options;
    options.rank = rank;
    options.world_size = 2;
    options.store_host = "[::1]";
    options.store_port = (*store)->port();
    options.host = "[::1]";
    ranks.push_back(std::async(std::launch::async, [options] { return Group::Create(options); }));
  }
  std::vector<MaybeGroup> groups;  // one that has joined stays until the other has
  for (auto& rank : ranks) groups.push_back(rank.get());
  for (const MaybeGroup& group : groups) EXPECT_TRUE(group.ok()) << group.status();
}

TEST(StoreServer, ForgetsGenerationsThatAreOver) {
  auto store = StoreServer::Start("127.0.0.1");
  ASSERT_TRUE(store.ok()) << store.status();
  const auto count = [&](const std::string& prefix) {
    const std::vector<std::string> keys = (*store)->Keys();
    return std::count_if(keys.begin(), keys.end(), [&](const auto& key) { return key.rfind(prefix, 0) == 0; });
  };
  for (const char* generation : {"gen/1", "gen/10", "gen/11"}) {
    std::vector<std::future<absl::Status>> ranks;
    for (int rank = 0; rank < 2; ++rank) {
      Group::Options options;
      options.rank = rank;
      options.world_size = 2;
      options.store_host = "127.0.0.1";
      options.store_port = (*store)->port();
      options.store_prefix = generation;
      ranks.push_back(std::async(std::launch::async, [options]() -> absl::Status {
        auto group = Group::Create(options);
        return group.ok() ? (*group)->AllReduceSum(at::ones({1})) : group.status();
      }));
    }
    for (auto& rank : ranks) EXPECT_EQ(rank.get(), absl::OkStatus());
  }
  ASSERT_GT(count("gen/1/"), 0);
  const auto kept = count("gen/11/");
  ASSERT_GT(kept, 0);
  const auto deadline = Clock::now() + std::chrono::seconds(60);
  (*store)->Forget([](const std::string& key) { return key.rfind("gen/1/", 0) == 0 || key.rfind("gen/10/", 0) == 0; });
  while (count("gen/") > kept && Clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(count("gen/"), kept);
  EXPECT_EQ(count("gen/11/"), kept);
}

TEST(StoreServer, SaysWhatIsWrongWithItsAddress) {
  auto first = StoreServer::Start("127.0.0.1");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_GT((*first)->port(), 0);
  EXPECT_EQ(StoreServer::Start("127.0.0.1", (*first)->port()).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(StoreServer::Start("host.invalid").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StoreServer::Start("192.0.2.1").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace polystill::collectives

int main(int argc, char** argv) {
  using namespace polystill::collectives;
  return RankTestMain(argc, argv,
                      {{"sum", SumRank},
                       {"reduce", ReduceRank},
                       {"accumulate", AccumulateRank},
                       {"table", TableRank},
                       {"empty", EmptySliceRank},
                       {"endless", EndlessRank}});
}
