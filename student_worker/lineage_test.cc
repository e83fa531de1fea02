#include "student_worker/lineage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace polystill::student_worker {
namespace {

using testing::HasSubstr;
using Kind = Source::Kind;

// What a rank holds; the digest follows from the name unless it is given.
struct Held {
  int64_t generation;
  int64_t step;
  std::string digest = "";
};
std::vector<v1::StateNote> Notes(const std::vector<Held>& held) {
  std::vector<v1::StateNote> notes;
  for (const Held& one : held) {
    v1::StateNote& note = notes.emplace_back();
    note.set_state_generation(one.generation);
    note.set_step(one.step);
    if (one.step < 0) continue;
    note.set_digest(one.digest.empty() ? absl::StrCat(one.generation, ".", one.step) : one.digest);
  }
  return notes;
}

v1::WorkerOrder::Assignment Admitted(int64_t generation, int64_t step) {
  v1::WorkerOrder::Assignment assignment;
  if (step < 0) return assignment;
  assignment.set_checkpoint("checkpoints/distilled");
  assignment.set_checkpoint_generation(generation);
  assignment.set_checkpoint_step(step);
  return assignment;
}

struct Case {
  std::string name;
  std::vector<Held> held;
  // Step -1: no checkpoint.
  int64_t checkpoint_generation;
  int64_t checkpoint_step;
  Source source;
};
class ChooseSourceTest : public testing::TestWithParam<Case> {};
TEST_P(ChooseSourceTest, FindsTheGreatestState) {
  const Case& c = GetParam();
  const auto source = ChooseSource(Notes(c.held), Admitted(c.checkpoint_generation, c.checkpoint_step));
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_EQ(*source, c.source);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, ChooseSourceTest,
    testing::Values(
        Case{"AllNew", {{0, 0}, {0, 0}}, 0, -1, {Kind::kMemory, {0, 0}, 0, "0.0", {}}},
        Case{"OneStepAhead", {{3, 7}, {3, 8}, {3, 8}}, 0, -1, {Kind::kMemory, {3, 8}, 1, "3.8", {0}}},
        Case{"ANewcomerReceives", {{0, 0}, {3, 8}}, 0, -1, {Kind::kMemory, {3, 8}, 1, "3.8", {0}}},
        Case{"TheGenerationCountsFirst", {{2, 90}, {3, 8}, {2, 91}}, 0, -1, {Kind::kMemory, {3, 8}, 1, "3.8", {0, 2}}},
        Case{"WhoHoldsNoneReceives", {{3, -1}, {3, 8}, {3, 8}}, 0, -1, {Kind::kMemory, {3, 8}, 1, "3.8", {0}}},
        Case{"MemoryBeforeAnEqualCheckpoint", {{3, 8}, {0, 0}}, 3, 8, {Kind::kMemory, {3, 8}, 0, "3.8", {1}}},
        Case{"AGreaterCheckpoint", {{3, 8}, {0, 0}}, 3, 9, {Kind::kCheckpoint, {3, 9}}},
        Case{"ACheckpointOfAnOlderGeneration", {{3, 8}}, 2, 90, {Kind::kMemory, {3, 8}, 0, "3.8", {}}},
        Case{"NobodyHoldsAny", {{3, -1}, {2, -1}}, 3, 5, {Kind::kCheckpoint, {3, 5}}},
        Case{"TheInitialWeightsLoseAgainstAnyCheckpoint", {{0, 0}}, 1, 2, {Kind::kCheckpoint, {1, 2}}},
        Case{"Nothing", {{3, -1}, {2, -1}}, 0, -1, {Kind::kInitial}}),
    [](const auto& info) { return info.param.name; });

TEST(NamesakesTest, StatesOfOneNameMustHaveOneDigest) {
  for (const auto& held : {std::vector<Held>{{3, 8, "a"}, {3, 8, "b"}}, {{3, 8, "a"}, {3, 8, "b"}, {4, 9}}}) {
    const absl::Status status = ChooseSource(Notes(held), {}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 0 holds a, rank 1 holds b"));
  }
}

}  // namespace
}  // namespace polystill::student_worker
