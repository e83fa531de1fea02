// The protocol of docs/elastic.md under faults: the coordinator's and the workers' own state machines in a simulated
// world with virtual time.
//
//   simulation_test                      what CI runs
//   simulation_test --schedules=100000 --seed=1000000    more
//   simulation_test --replay=42          one schedule, event by event
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "tests/simulation/schedule.h"

ABSL_FLAG(int64_t, schedules, 4000, "schedules to run, one a seed");
ABSL_FLAG(uint64_t, seed, 1, "the first seed");
ABSL_FLAG(int64_t, replay, -1, "run this seed alone, and print what happens");
ABSL_FLAG(int, threads, 2, "schedules at a time");

namespace polystill::simulation {
namespace {

constexpr int64_t kLeastEvents = 200;
constexpr int64_t kLeastFaults = 3;

struct Sum {
  int64_t schedules = 0, events = 0, faults = 0, left_out = 0, given_up = 0, not_reached = 0, least_events = INT64_MAX,
          least_faults = INT64_MAX;
  std::vector<std::pair<uint64_t, std::string>> failed;

  void Add(uint64_t seed, const Outcome& outcome) {
    ++schedules;
    events += outcome.events;
    faults += outcome.faults;
    left_out += outcome.left_out;
    given_up += outcome.given_up;
    not_reached += outcome.not_reached;
    least_events = std::min(least_events, outcome.events);
    least_faults = std::min(least_faults, outcome.faults);
    if (outcome.faults < kLeastFaults || outcome.events < kLeastEvents)
      std::printf("SMALL seed %lu: %ld events, %ld faults\n", seed, outcome.events, outcome.faults);
    if (!outcome.violation.empty()) failed.emplace_back(seed, outcome.violation);
  }
};

TEST(Simulation, EveryScheduleKeepsEveryInvariant) {
  const uint64_t first = absl::GetFlag(FLAGS_seed);
  const uint64_t end = first + static_cast<uint64_t>(absl::GetFlag(FLAGS_schedules));
  std::atomic<uint64_t> next = first;
  std::mutex mutex;
  Sum sum;
  std::vector<std::thread> threads;
  for (int i = 0; i < absl::GetFlag(FLAGS_threads); ++i) {
    threads.emplace_back([&] {
      for (uint64_t seed = next++; seed < end; seed = next++) {
        const Outcome outcome = RunSchedule(seed);
        const std::lock_guard lock(mutex);
        sum.Add(seed, outcome);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::printf("schedules: %ld, events: %ld (at least %ld each), faults: %ld (at least %ld each)\n", sum.schedules,
              sum.events, sum.least_events, sum.faults, sum.least_faults);
  std::printf("workers left out as slow: %ld, given up as hanging: %ld, left out as not reached: %ld\n", sum.left_out,
              sum.given_up, sum.not_reached);
  std::sort(sum.failed.begin(), sum.failed.end());
  for (size_t i = 0; i < std::min<size_t>(sum.failed.size(), 20); ++i) {
    ADD_FAILURE() << sum.failed[i].second
                  << "\n  replay: build/release/test/simulation_test --replay=" << sum.failed[i].first;
  }
  EXPECT_EQ(sum.failed.size(), 0u);
  EXPECT_GE(sum.least_events, kLeastEvents);
  EXPECT_GE(sum.least_faults, kLeastFaults);
  EXPECT_GE(sum.left_out, sum.schedules / 100);
  EXPECT_GE(sum.given_up, sum.schedules / 100);
  EXPECT_GE(sum.not_reached, sum.schedules / 100);
}

TEST(Simulation, ASeedDecidesEverything) {
  for (const uint64_t seed : {7u, 8u, 9u}) {
    const Outcome once = RunSchedule(seed), again = RunSchedule(seed);
    EXPECT_EQ(once.events, again.events);
    EXPECT_EQ(once.faults, again.faults);
  }
}

// Each bug is found, by its invariant, within the seeds that CI runs.
struct Planted {
  const char* name;
  bool Bugs::*bug;
  // The numbers of the invariants that may find it first.
  const char* found_by;
};
class PlantedBug : public testing::TestWithParam<Planted> {};
TEST_P(PlantedBug, IsFound) {
  Bugs bugs;
  bugs.*GetParam().bug = true;
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    const Outcome outcome = RunSchedule(seed, bugs);
    if (outcome.violation.empty()) continue;
    std::printf("seed %lu: %s\n", static_cast<unsigned long>(seed), outcome.violation.c_str());
    EXPECT_NE(std::string(GetParam().found_by).find(outcome.violation[0]), std::string::npos) << outcome.violation;
    return;
  }
  FAIL() << "not found";
}
INSTANTIATE_TEST_SUITE_P(Bugs, PlantedBug,
                         testing::Values(Planted{"NoStaging", &Bugs::no_staging, "4"},
                                         Planted{"NoVerification", &Bugs::no_verification, "24"},
                                         Planted{"EarlyOptimizer", &Bugs::early_optimizer, "5"},
                                         Planted{"NoGenerationFence", &Bugs::no_generation_fence, "6"},
                                         Planted{"NoTermFence", &Bugs::no_term_fence, "6"},
                                         Planted{"SmallestState", &Bugs::smallest_state, "3"},
                                         Planted{"StepsAlone", &Bugs::steps_alone, "3"},
                                         Planted{"DoneForgets", &Bugs::done_forgets, "4"},
                                         Planted{"CheckpointToldEarly", &Bugs::checkpoint_told_early, "8"},
                                         Planted{"WithoutLabels", &Bugs::without_labels, "r"},
                                         Planted{"HidesThatItHangs", &Bugs::hides_that_it_hangs, "9"},
                                         Planted{"ReplyBeforeDurable", &Bugs::reply_before_durable, "7"},
                                         Planted{"GenerationNotDurable", &Bugs::generation_not_durable, "17"},
                                         Planted{"MembersNotDurable", &Bugs::members_not_durable, "7"},
                                         Planted{"NoStoreFence", &Bugs::no_store_fence, "6"},
                                         Planted{"FencedCheckpoint", &Bugs::fenced_checkpoint, "68"},
                                         Planted{"NewcomerIsMember", &Bugs::newcomer_is_member, "9"}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace polystill::simulation

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  const int64_t seed = absl::GetFlag(FLAGS_replay);
  if (seed < 0) return RUN_ALL_TESTS();
  const auto outcome = polystill::simulation::RunSchedule(static_cast<uint64_t>(seed), {}, /*verbose=*/true);
  std::printf("%ld events, %ld faults: %s\n", outcome.events, outcome.faults,
              outcome.violation.empty() ? "every invariant was kept" : outcome.violation.c_str());
  return outcome.violation.empty() ? 0 : 1;
}
