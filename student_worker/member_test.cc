#include "student_worker/member.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace polystill::student_worker {
namespace {

using testing::ElementsAre;
using Reaction = Member::Reaction::Kind;
using State = Member::State;

v1::WorkerOrder Assign(int64_t generation, int64_t term = 1, const std::string& job = "distilled",
                       v1::Job::Kind kind = v1::Job::KIND_TRAIN) {
  v1::WorkerOrder order;
  auto& assignment = *order.mutable_assignment();
  assignment.set_term(term);
  assignment.set_generation(generation);
  assignment.set_world_size(2);
  assignment.mutable_job()->set_name(job);
  assignment.mutable_job()->set_kind(kind);
  return order;
}

v1::WorkerOrder Regroup(int64_t generation, bool at_boundary = false, int64_t term = 1) {
  v1::WorkerOrder order;
  order.mutable_regroup()->set_term(term);
  order.mutable_regroup()->set_generation(generation);
  order.mutable_regroup()->set_at_boundary(at_boundary);
  return order;
}

v1::WorkerOrder Teachers(int64_t generation, const std::string& address, int64_t term = 1) {
  v1::WorkerOrder order;
  order.mutable_teachers()->set_term(term);
  order.mutable_teachers()->set_generation(generation);
  order.mutable_teachers()->add_teachers()->set_address(address);
  return order;
}

v1::StateNote Note(int64_t generation, int64_t step, const std::string& digest) {
  v1::StateNote note;
  note.set_state_generation(generation);
  note.set_step(step);
  note.set_digest(digest);
  return note;
}

class MemberTest : public testing::Test {
 protected:
  MemberTest() { EXPECT_TRUE(member_.Welcomed(1)); }

  // Goes to work in `generation` with what it holds.
  void Work(int64_t generation, int64_t term = 1) {
    EXPECT_EQ(member_.Ordered(Assign(generation, term)).kind, Reaction::kLook);
    Agree(generation);
  }
  void Agree(int64_t generation) {
    ASSERT_NE(member_.Begin(), nullptr);
    member_.Joined();
    v1::StateNote own = member_.note();
    own.set_digest("d");
    ASSERT_TRUE(member_.Agree({own, own}).ok());
    EXPECT_EQ(member_.Agreed("d").agreed().generation(), generation);
  }
  void Apply(int steps = 1) {
    for (; steps > 0; --steps) {
      member_.Applying();
      member_.Applied();
    }
  }

  Member member_;
};

TEST_F(MemberTest, AGenerationFromItsAssignmentToItsEnd) {
  EXPECT_EQ(member_.state(), State::kWaiting);
  EXPECT_EQ(member_.Begin(), nullptr);
  EXPECT_EQ(member_.Ordered(Assign(4)).kind, Reaction::kLook);
  EXPECT_FALSE(member_.standing().working()) << "to a new coordinator, whose store is another one";
  ASSERT_NE(member_.Begin(), nullptr);
  EXPECT_EQ(member_.state(), State::kJoining);
  EXPECT_FALSE(member_.standing().working());
  EXPECT_EQ(member_.Begin(), nullptr);
  member_.Joined();
  EXPECT_TRUE(member_.standing().working());
  const auto source = member_.Agree({Note(0, 0, "d"), Note(0, 0, "d")});
  ASSERT_TRUE(source.ok());
  EXPECT_EQ(source->kind, Source::Kind::kMemory);
  const v1::WorkerMessage agreed = member_.Agreed("d");
  EXPECT_EQ(agreed.agreed().generation(), 4);
  EXPECT_EQ(agreed.agreed().from_generation(), 0);
  EXPECT_EQ(member_.held(), (StateName{4, 0}));
  Apply(2);
  EXPECT_EQ(member_.held(), (StateName{4, 2}));
  const auto done = member_.Done({}, "w");
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->done().weights_digest(), "w");
  EXPECT_EQ(done->done().progress().generation(), 4);
  EXPECT_EQ(member_.state(), State::kDone);
  EXPECT_EQ(member_.held(), (StateName{4, 2})) << "a peer may die before it is done too";
}

TEST_F(MemberTest, ItHoldsNothingWhileItTakesAStateOver) {
  member_.Ordered(Assign(7));
  member_.Begin();
  member_.Joined();
  const auto source = member_.Agree({Note(0, 0, "new"), Note(5, 30, "d")});
  ASSERT_TRUE(source.ok());
  EXPECT_THAT(source->receivers, ElementsAre(0));
  member_.Taking();
  EXPECT_EQ(member_.note().step(), -1);
  EXPECT_EQ(member_.Leave(absl::AbortedError("gone"))->interrupted().standing().step(), -1);

  member_.Ordered(Assign(8));
  member_.Begin();
  member_.Joined();
  ASSERT_TRUE(member_.Agree({member_.note(), Note(5, 30, "d")}).ok());
  member_.Taking();
  member_.Taken();
  EXPECT_EQ(member_.held(), (StateName{5, 30}));
  EXPECT_EQ(member_.Agreed("d").agreed().from_generation(), 5);
  EXPECT_EQ(member_.held(), (StateName{8, 30}));
}

TEST_F(MemberTest, ItHoldsNothingWhileItAppliesAStep) {
  Work(1);
  Apply();
  member_.Applying();
  EXPECT_FALSE(member_.held().held());
  const auto interrupted = member_.Leave(absl::AbortedError("gone"));
  EXPECT_EQ(interrupted->interrupted().standing().step(), -1);
  EXPECT_FALSE(interrupted->interrupted().standing().working());
}

TEST_F(MemberTest, ALostPeerIsToldWithWhatIsHeld) {
  Work(3);
  Apply(5);
  const auto said = member_.Leave(absl::AbortedError("rank 1 is gone"));
  ASSERT_TRUE(said.has_value());
  EXPECT_EQ(said->interrupted().code(), static_cast<int>(absl::StatusCode::kAborted));
  EXPECT_EQ(said->interrupted().reason(), "rank 1 is gone");
  const v1::Standing& standing = said->interrupted().standing();
  EXPECT_EQ(standing.job(), "distilled");
  EXPECT_EQ(standing.generation(), 3);
  EXPECT_EQ(standing.state_generation(), 3);
  EXPECT_EQ(standing.step(), 5);
  EXPECT_FALSE(member_.Ordered(Regroup(3)).say.has_value()) << "it has said so already";
}

TEST_F(MemberTest, AnOrderToRegroupAtOnceBreaksTheGroup) {
  Work(3);
  EXPECT_FALSE(member_.must_leave());
  EXPECT_EQ(member_.Ordered(Regroup(3)).kind, Reaction::kBreak);
  EXPECT_TRUE(member_.must_leave());
  EXPECT_FALSE(member_.standing().working());
  EXPECT_EQ(member_.Leave(absl::OkStatus())->interrupted().code(), 0);
}

TEST_F(MemberTest, AnOrderToRegroupAtTheBoundaryWaitsForIt) {
  Work(3);
  EXPECT_EQ(member_.Ordered(Regroup(3, /*at_boundary=*/true)).kind, Reaction::kLook);
  EXPECT_TRUE(member_.leave_at_boundary());
  EXPECT_FALSE(member_.must_leave());
  EXPECT_TRUE(member_.standing().working());
  Apply();
  EXPECT_TRUE(member_.Leave(absl::OkStatus()).has_value());
  Work(4);
  EXPECT_FALSE(member_.leave_at_boundary());
}

TEST_F(MemberTest, AnAssignmentThatIsNotBegunIsTakenBack) {
  member_.Ordered(Assign(3));
  const auto reaction = member_.Ordered(Regroup(3));
  ASSERT_TRUE(reaction.say.has_value());
  EXPECT_EQ(reaction.say->interrupted().standing().generation(), 3);
  EXPECT_EQ(member_.Begin(), nullptr);
  EXPECT_FALSE(member_.standing().working());
  Work(4);
}

TEST_F(MemberTest, WhoeverIsDoneMayHaveToComeAgain) {
  Work(3);
  Apply(10);
  member_.Done({}, "w");
  EXPECT_EQ(member_.Ordered(Regroup(3, /*at_boundary=*/true)).kind, Reaction::kNone);
  EXPECT_EQ(member_.state(), State::kDone);
  ASSERT_TRUE(member_.LastWord().has_value());
  const auto reaction = member_.Ordered(Regroup(3));
  ASSERT_TRUE(reaction.say.has_value());
  EXPECT_EQ(reaction.say->interrupted().standing().step(), 10);
  EXPECT_TRUE(member_.LastWord()->has_interrupted());
  Work(4);
  EXPECT_FALSE(member_.LastWord().has_value());
  EXPECT_EQ(member_.held(), (StateName{4, 10}));
}

TEST_F(MemberTest, NobodyIsDoneWithAGenerationThatIsOver) {
  Work(3);
  member_.Ordered(Regroup(3));
  const auto said = member_.Done({}, "w");
  ASSERT_TRUE(said.has_value());
  EXPECT_TRUE(said->has_interrupted());
  EXPECT_EQ(member_.state(), State::kWaiting);
}

TEST_F(MemberTest, WhoeverWasTakenForDeadGoesStraightToTheNextGeneration) {
  Work(3);
  Apply(2);
  EXPECT_EQ(member_.Ordered(Assign(5)).kind, Reaction::kBreak);
  EXPECT_TRUE(member_.must_leave());
  EXPECT_EQ(member_.Begin(), nullptr) << "not before the old one is left";
  EXPECT_FALSE(member_.Leave(absl::AbortedError("broken")).has_value());
  Agree(5);
  EXPECT_FALSE(member_.must_leave());
  EXPECT_EQ(member_.held(), (StateName{5, 2}));
}

TEST_F(MemberTest, AnOrderForTheNextGenerationIsKeptWhileTheOldOneIsLeft) {
  Work(3);
  member_.Ordered(Assign(5));
  member_.Ordered(Regroup(5, /*at_boundary=*/true));
  EXPECT_FALSE(member_.Leave(absl::AbortedError("broken")).has_value());
  Agree(5);
  EXPECT_TRUE(member_.leave_at_boundary());

  member_.Ordered(Assign(6));
  EXPECT_EQ(member_.Ordered(Regroup(6)).kind, Reaction::kBreak);
  const auto said = member_.Leave(absl::AbortedError("broken"));
  ASSERT_TRUE(said.has_value());
  EXPECT_EQ(said->interrupted().standing().generation(), 6);
  EXPECT_EQ(member_.Begin(), nullptr);
}

TEST_F(MemberTest, OrdersOfALowerTermOrAnOlderGenerationChangeNothing) {
  EXPECT_TRUE(member_.Welcomed(3));
  Work(4, 3);
  EXPECT_FALSE(member_.Welcomed(2));
  EXPECT_TRUE(member_.Welcomed(3));
  for (const v1::WorkerOrder& stale :
       {Assign(9, 2), Assign(4, 3), Assign(3, 3), Regroup(4, false, 2), Regroup(3, false, 3), Regroup(4, true, 2),
        Teachers(4, "old:1", 2), Teachers(3, "old:1", 3)}) {
    EXPECT_EQ(member_.Ordered(stale).kind, Reaction::kNone) << stale.ShortDebugString();
  }
  EXPECT_EQ(member_.standing().generation(), 4);
  EXPECT_FALSE(member_.must_leave());
  EXPECT_FALSE(member_.leave_at_boundary());
  EXPECT_EQ(member_.assignment().teachers_size(), 0);
}

TEST_F(MemberTest, TeachersComeAndGoWithinAGeneration) {
  Work(4);
  EXPECT_EQ(member_.Ordered(Teachers(4, "a:1")).kind, Reaction::kTeachers);
  EXPECT_EQ(member_.assignment().teachers(0).address(), "a:1");
  member_.Leave(absl::OkStatus());
  member_.Ordered(Assign(5));
  EXPECT_EQ(member_.Ordered(Teachers(5, "b:1")).kind, Reaction::kNone);
  EXPECT_EQ(member_.Begin()->teachers(0).address(), "b:1") << "before it is begun";
}

TEST_F(MemberTest, AnotherJobBeginsAnew) {
  Work(1);
  Apply(3);
  member_.Done({}, "w");
  member_.Ordered(Assign(2, 1, "evaluate", v1::Job::KIND_EVALUATE));
  EXPECT_EQ(member_.standing().job(), "evaluate");
  EXPECT_EQ(member_.standing().step(), 0);
  ASSERT_NE(member_.Begin(), nullptr);
  EXPECT_EQ(member_.state(), State::kWorking);
  EXPECT_EQ(member_.held(), (StateName{0, 0}));
  EXPECT_TRUE(member_.Done({}, "")->has_done());
}

TEST_F(MemberTest, AFailureIsSaidAgainToTheNextCoordinator) {
  Work(1);
  EXPECT_EQ(member_.Failed(absl::DataLossError("record r7")).failed().message(), "record r7");
  EXPECT_EQ(member_.LastWord()->failed().generation(), 1);
  EXPECT_FALSE(member_.standing().working());
}

TEST_F(MemberTest, AnOrderToStopIsPassedOn) {
  v1::WorkerOrder stop;
  stop.mutable_stop();
  EXPECT_EQ(member_.Ordered(stop).kind, Reaction::kStop);
}

}  // namespace
}  // namespace polystill::student_worker
