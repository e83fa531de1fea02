#include "coordinator/run_machine_fixture.h"

namespace polystill::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Code = absl::StatusCode;

// A training of `fewest` to `most` workers that starts with `workers`.
PlannedJob Elastic(int fewest, int workers, int most) {
  PlannedJob planned = Train("distilled", workers);
  planned.min_workers = fewest;
  planned.max_workers = most;
  planned.last_call = milliseconds(10'000);
  return planned;
}

class GenerationsTest : public RunMachineTest {
 protected:
  // `count` workers, streams from 1 on, in generation 1.
  void Work(const PlannedJob& planned, int count, std::vector<PlannedJob> later = {}) {
    later.insert(later.begin(), planned);
    Start(later);
    Prepared();
    for (StreamId stream = 1; stream <= count; ++stream) WorkerJoins(stream);
    ASSERT_EQ(Status().stages(1).generation(), 1);
    for (StreamId stream = 1; stream <= count; ++stream) WorkerAgrees(stream, 1, "d");
  }
  // Lets time pass in which every one of them is heard.
  std::vector<std::string> Beat(milliseconds time, const std::vector<StreamId>& streams) {
    std::vector<std::string> lines;
    for (; time > milliseconds(0); time -= milliseconds(1000)) {
      for (const StreamId stream : streams) WorkerBeats(stream);
      for (std::string& line : After(std::min(time, milliseconds(1000)))) lines.push_back(std::move(line));
    }
    return lines;
  }
};

TEST(StorePrefixOf, TellsEarlierGenerationsFromLaterOnes) {
  EXPECT_EQ(StorePrefixOf(10), "gen/10");
  for (const char* key : {"gen/1/rank0", "gen/9/nccl/id", "gen/9"}) EXPECT_TRUE(OfEarlierGenerations(10)(key)) << key;
  for (const char* key : {"gen/10/rank0", "gen/11/rank0", "gen/100/x", "init/", "gen/", "gen/x/1", ""}) {
    EXPECT_FALSE(OfEarlierGenerations(10)(key)) << key;
  }
}

TEST_F(GenerationsTest, AJobStartsWithFewerAfterItsLastCall) {
  Start({Elastic(2, 3, 4)});
  Prepared();
  WorkerJoins(1);
  EXPECT_THAT(Beat(milliseconds(20'000), {1}), IsEmpty());
  EXPECT_EQ(Status().stages(1).waiting_for(), "1 of 3 workers");
  WorkerJoins(2);
  EXPECT_THAT(Beat(milliseconds(9900), {1, 2}), IsEmpty());
  EXPECT_EQ(Status().stages(1).waiting_for(), "2 of 3 workers");
  EXPECT_THAT(Beat(milliseconds(100), {1, 2}),
              ElementsAre("record generation 1", "assign 1 distilled 1 rank 0/2", "assign 2 distilled 1 rank 1/2"));
}

TEST_F(GenerationsTest, AJobStartsAtOnceWithAllThatItAsksFor) {
  Start({Elastic(2, 3, 4)});
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerJoins(3);
  EXPECT_THAT(Prepared(),
              ElementsAre("record segment distilled", "record generation 1", "assign 1 distilled 1 rank 0/3",
                          "assign 2 distilled 1 rank 1/3", "assign 3 distilled 1 rank 2/3"));
}

TEST_F(GenerationsTest, WhoComesWaitsALittleForThoseThatHoldTheState) {
  Work(Elastic(1, 2, 3), 2);
  WorkerProgress(1, 1, 5, 0.5, 80);
  Do(StreamClosed{1});
  Do(StreamClosed{2});
  EXPECT_THAT(WorkerJoins(3), ElementsAre("welcome 3"));
  EXPECT_EQ(Status().stages(1).waiting_for(), "workers that hold the last steps");
  EXPECT_THAT(Beat(milliseconds(1000), {3}), IsEmpty());
  EXPECT_THAT(
      WorkerComesBack(4, "worker-2", 1, /*working=*/false),
      ElementsAre("welcome 4", "record generation 2", "assign 3 distilled 2 rank 0/2", "assign 4 distilled 2 rank 1/2"))
      << "it was only cut off";
}

TEST_F(GenerationsTest, WhoComesGoesOnWithoutThoseThatDoNotComeBack) {
  Work(Elastic(1, 2, 3), 2);
  WorkerProgress(1, 1, 5, 0.5, 80);
  Do(StreamClosed{1});
  Do(StreamClosed{2});
  WorkerJoins(3);
  EXPECT_THAT(Beat(milliseconds(2900), {3}), IsEmpty());
  EXPECT_THAT(Beat(milliseconds(200), {3}), ElementsAre("record generation 2", "assign 3 distilled 2 rank 0/1"));
}

TEST_F(GenerationsTest, SurvivorsGoOnOnceAllOfThemAreHeard) {
  Work(Elastic(2, 3, 3), 3);
  EXPECT_THAT(Do(StreamClosed{2}), ElementsAre("regroup 1 1", "regroup 3 1"));
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), IsEmpty());
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), IsEmpty()) << "once more";
  EXPECT_THAT(WorkerLeaves(3, 1),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
  EXPECT_EQ(Status().stages(1).generation(), 2);
  EXPECT_EQ(Status().stages(1).workers(), 2);
  EXPECT_EQ(Status().stages(1).workers_wanted(), 3);
}

TEST_F(GenerationsTest, AnInterruptionIsHeardBeforeTheLoss) {
  Work(Elastic(1, 3, 3), 3);
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), ElementsAre("regroup 2 1", "regroup 3 1"));
  EXPECT_THAT(WorkerLeaves(3, 1, Code::kAborted), IsEmpty());
  EXPECT_THAT(Do(StreamClosed{2}),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
}

TEST_F(GenerationsTest, AFailureThatIsAConsequenceIsAnInterruption) {
  Work(Elastic(1, 2, 2), 2);
  EXPECT_THAT(WorkerFails(1, 1, Code::kAborted, "connection closed"), ElementsAre("regroup 2 1"));
  EXPECT_THAT(WorkerLeaves(2, 1),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 2 distilled 2 rank 1/2"));
}

TEST_F(GenerationsTest, WithTooFewItWaitsForAnother) {
  Work(Train("distilled", 2), 2);
  Do(StreamClosed{1});
  EXPECT_THAT(WorkerLeaves(2, 1), IsEmpty());
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  EXPECT_EQ(Status().stages(1).waiting_for(), "1 of 2 workers");
  EXPECT_THAT(WorkerJoins(7), ElementsAre("welcome 7", "record generation 2", "assign 2 distilled 2 rank 0/2",
                                          "assign 7 distilled 2 rank 1/2"));
}

TEST_F(GenerationsTest, ASilentWorkerIsGoneAfterFiveSeconds) {
  Work(Elastic(1, 2, 2), 2);
  After(milliseconds(3000));
  WorkerBeats(1);
  EXPECT_THAT(After(milliseconds(1999)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("close 2 DEADLINE_EXCEEDED", "regroup 1 1"));
}

TEST_F(GenerationsTest, NewcomersAreTakenInAtABoundary) {
  Work(Elastic(1, 2, 4), 2);
  EXPECT_THAT(WorkerJoins(3), ElementsAre("welcome 3", "regroup 1 1 at boundary", "regroup 2 1 at boundary"));
  EXPECT_THAT(WorkerJoins(4), ElementsAre("welcome 4"));
  EXPECT_THAT(WorkerJoins(5), ElementsAre("welcome 5"));
  EXPECT_THAT(WorkerLeaves(2, 1), IsEmpty()) << "the others leave by themselves";
  EXPECT_THAT(WorkerLeaves(1, 1),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/4", "assign 2 distilled 2 rank 1/4",
                          "assign 3 distilled 2 rank 2/4", "assign 4 distilled 2 rank 3/4"));
  EXPECT_THAT(WorkerJoins(6), ElementsAre("welcome 6")) << "no more are wanted";
}

TEST_F(GenerationsTest, ALossOnTheWayToABoundaryEndsItAtOnce) {
  Work(Elastic(1, 2, 3), 2);
  WorkerJoins(3);
  EXPECT_THAT(Do(StreamClosed{1}), ElementsAre("regroup 2 1"));
  EXPECT_THAT(WorkerLeaves(2, 1),
              ElementsAre("record generation 2", "assign 2 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
}

TEST_F(GenerationsTest, TheNumberOfWorkersIsSetByCommand) {
  Work(Elastic(1, 3, 3), 3);
  EXPECT_THAT(Do(ScaleAsked{1}), ElementsAre("record workers 1", "regroup 1 1 at boundary", "regroup 2 1 at boundary",
                                             "regroup 3 1 at boundary"));
  WorkerLeaves(1, 1);
  WorkerLeaves(2, 1);
  EXPECT_THAT(WorkerLeaves(3, 1), ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/1"));
  EXPECT_EQ(Status().stages(1).workers_wanted(), 1);
  EXPECT_THAT(Do(ScaleAsked{2}), ElementsAre("record workers 2", "regroup 1 2 at boundary"));
  EXPECT_THAT(WorkerLeaves(1, 2),
              ElementsAre("record generation 3", "assign 1 distilled 3 rank 0/2", "assign 2 distilled 3 rank 1/2"));
}

TEST_F(GenerationsTest, WordsOfAnOlderGenerationChangeNothing) {
  Work(Elastic(1, 2, 2), 2);
  Do(StreamClosed{1});
  WorkerLeaves(2, 1);
  EXPECT_THAT(WorkerLeaves(2, 1, Code::kAborted), IsEmpty());
  EXPECT_THAT(WorkerDone(2, 1, "w"), IsEmpty());
  EXPECT_THAT(WorkerFails(2, 1, Code::kDataLoss, "r7"), IsEmpty());
  EXPECT_THAT(WorkerAgrees(2, 1, "other"), IsEmpty());
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  EXPECT_FALSE(Status().stages(1).finished());
}

TEST_F(GenerationsTest, AWorkerThatComesBackIsANewcomer) {
  Work(Elastic(1, 2, 2), 2);
  // Its last stream is not known to be broken yet.
  EXPECT_THAT(WorkerComesBack(3, "worker-1", 1, true), ElementsAre("close 1 ABORTED", "regroup 2 1", "welcome 3"));
  EXPECT_THAT(WorkerLeaves(2, 1),
              ElementsAre("record generation 2", "assign 2 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
}

TEST_F(GenerationsTest, DoneIsCountedInOneGeneration) {
  Work(Elastic(1, 3, 3), 3);
  WorkerDone(1, 1, "w");
  EXPECT_THAT(Do(StreamClosed{2}), ElementsAre("regroup 1 1", "regroup 3 1"));
  WorkerLeaves(1, 1);
  WorkerLeaves(3, 1);
  WorkerDone(1, 2, "w");
  EXPECT_FALSE(Status().stages(1).finished());
  WorkerDone(3, 2, "w");
  EXPECT_TRUE(Status().stages(1).finished());
}

TEST_F(GenerationsTest, WhoeverIsDoneMayLeave) {
  Work(Elastic(1, 2, 2), 2);
  WorkerDone(1, 1, "w");
  EXPECT_THAT(Do(StreamClosed{1}), IsEmpty());
  EXPECT_THAT(WorkerDone(2, 1, "w"), testing::Contains(HasSubstr("record done distilled w")));
}

TEST_F(GenerationsTest, NobodyIsTakenInTowardsTheEnd) {
  Work(Elastic(1, 2, 3), 2);
  WorkerDone(1, 1, "w");
  EXPECT_THAT(WorkerJoins(3), ElementsAre("welcome 3"));
}

TEST_F(GenerationsTest, ReplicasThatAgreeOnDifferentStatesFailTheRun) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerAgrees(1, 1, "d");
  EXPECT_THAT(WorkerAgrees(2, 1, "e"), ElementsAre("stop 1", "stop 2"));
  EXPECT_THAT(Status().reason(), HasSubstr("replicas apart"));
}

TEST_F(GenerationsTest, WorkersThatDoNotReachEachOtherTryLessAndLessOften) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  const auto fail = [this](int64_t generation) {
    WorkerLeaves(1, generation, Code::kAborted);
    return WorkerLeaves(2, generation, Code::kAborted);
  };
  EXPECT_EQ(fail(1).size(), 3u) << "at once";
  EXPECT_THAT(fail(2), IsEmpty());
  EXPECT_EQ(Status().stages(1).waiting_for(), "workers that reach each other");
  EXPECT_THAT(After(milliseconds(99)), IsEmpty());
  EXPECT_EQ(After(milliseconds(1)).size(), 3u);
  EXPECT_THAT(fail(3), IsEmpty());
  EXPECT_THAT(After(milliseconds(199)), IsEmpty());
  EXPECT_EQ(After(milliseconds(1)).size(), 3u);
  WorkerAgrees(1, 4, "d");
  EXPECT_EQ(fail(4).size(), 3u) << "they had reached each other";
}

// Of a coordinator that starts on what another has left: its last generation is 6, of "a" and "b".
class AdoptionTest : public GenerationsTest {
 protected:
  void Restart(PlannedJob planned = Elastic(1, 2, 2)) { Start({planned}, {}, {6, "distilled", {"a", "b"}}); }
};

TEST_F(AdoptionTest, NothingHappensWhenAllAreStillAtWork) {
  Restart();
  EXPECT_THAT(WorkerComesBack(1, "b", 6, true), ElementsAre("welcome 1"));
  EXPECT_THAT(Prepared(), ElementsAre("record segment distilled"));
  EXPECT_THAT(WorkerComesBack(2, "a", 6, true), ElementsAre("welcome 2"));
  WorkerBeats(1, 6);
  WorkerBeats(2, 6);
  EXPECT_THAT(Beat(milliseconds(60'000), {1, 2}), IsEmpty());
  EXPECT_EQ(Status().stages(1).generation(), 6);
  WorkerDone(1, 6, "w");
  EXPECT_THAT(WorkerDone(2, 6, "w"),
              testing::Contains("record done distilled w run/checkpoints/distilled/step-000000010-gen-6"));
}

TEST_F(AdoptionTest, WhoeverHasNotBegunInThirtySecondsHangs) {
  Restart();
  Prepared();
  WorkerComesBack(1, "a", 6, true);
  WorkerComesBack(2, "b", 6, true);
  WorkerBeats(1, 6);
  EXPECT_THAT(Beat(milliseconds(29'900), {1, 2}), IsEmpty());
  EXPECT_THAT(Beat(milliseconds(100), {1, 2}), ElementsAre("close 2 ABORTED", "regroup 1 6"));
}

TEST_F(AdoptionTest, WhatIsSaidBeforeTheJobsAreKnownCounts) {
  Restart();
  WorkerComesBack(1, "a", 6, true);
  WorkerComesBack(2, "b", 6, true);
  EXPECT_THAT(WorkerDone(1, 6, "w"), IsEmpty());
  EXPECT_THAT(WorkerDone(2, 6, "w"), IsEmpty());
  EXPECT_THAT(Prepared(), testing::Contains(HasSubstr("record done distilled w")));
}

TEST_F(AdoptionTest, WhoeverHasLeftEndsTheGeneration) {
  Restart();
  Prepared();
  EXPECT_THAT(WorkerComesBack(1, "a", 6, false), ElementsAre("welcome 1"));
  EXPECT_THAT(WorkerComesBack(2, "b", 6, true), ElementsAre("welcome 2", "regroup 2 6"));
  EXPECT_THAT(WorkerLeaves(2, 6),
              ElementsAre("record generation 7", "assign 1 distilled 7 rank 0/2", "assign 2 distilled 7 rank 1/2"));
}

TEST_F(AdoptionTest, AnAssignmentThatNeverArrivedEndsTheGeneration) {
  Restart();
  Prepared();
  WorkerComesBack(1, "a", 6, true);
  EXPECT_THAT(WorkerComesBack(2, "b", 5, true), ElementsAre("welcome 2", "regroup 1 6"));
}

TEST_F(AdoptionTest, WhoeverDoesNotComeIsGone) {
  Restart();
  Prepared();
  EXPECT_THAT(WorkerJoins(9), ElementsAre("welcome 9")) << "newcomers wait";
  WorkerComesBack(1, "b", 6, true);
  EXPECT_THAT(Beat(milliseconds(9900), {1, 9}), IsEmpty());
  EXPECT_THAT(Beat(milliseconds(100), {1, 9}), ElementsAre("regroup 1 6"));
  EXPECT_THAT(WorkerLeaves(1, 6),
              ElementsAre("record generation 7", "assign 1 distilled 7 rank 0/2", "assign 9 distilled 7 rank 1/2"));
}

TEST_F(AdoptionTest, ACoordinatorThatStoodStillAfterItsStartGivesNobodyUp) {
  Restart();
  Prepared();
  WorkerComesBack(1, "a", 6, true);
  Beat(milliseconds(2000), {1});
  now_ += milliseconds(60'000);
  EXPECT_THAT(Do(Tick{}), IsEmpty());
  EXPECT_THAT(Beat(milliseconds(7900), {1}), IsEmpty()) << "what was left to them before";
  EXPECT_THAT(WorkerComesBack(2, "b", 6, true), ElementsAre("welcome 2"));
  EXPECT_THAT(Beat(milliseconds(20'000), {1, 2}), IsEmpty());
}

TEST_F(AdoptionTest, WhoeverDoesNotComeIsGoneThoughEveryTickIsLate) {
  Restart();
  Prepared();
  WorkerComesBack(1, "a", 6, true);
  std::vector<std::string> lines;
  for (int i = 0; i < 9; ++i) {
    WorkerBeats(1);
    now_ += milliseconds(1500);
    for (std::string& line : Do(Tick{})) lines.push_back(std::move(line));
  }
  EXPECT_THAT(lines, ElementsAre("regroup 1 6"));
}

// The index takes long to be made again, and checkpoints are frequent.
TEST_F(AdoptionTest, WhateverIsSaidBeforeTheJobsAreKnownClosesNoStream) {
  PlannedJob planned = Elastic(1, 2, 2);
  planned.job.set_steps(100);
  Restart(planned);
  WorkerComesBack(1, "a", 6, true);
  WorkerComesBack(2, "b", 6, true);
  for (int64_t step = 1; step <= 99; ++step) EXPECT_THAT(WorkerHasWritten(1, 6, step), IsEmpty()) << step;
  for (int i = 0; i < 99; ++i) EXPECT_THAT(WorkerAgrees(1, 6, "d"), IsEmpty());
  WorkerDone(1, 6, "w", 100);
  EXPECT_THAT(WorkerAgrees(1, 6, "d"), IsEmpty()) << "said again";
  EXPECT_THAT(WorkerLeaves(1, 5), IsEmpty()) << "of an older generation";
  WorkerDone(2, 6, "w", 100);
  const std::vector<std::string> lines = Prepared();
  EXPECT_THAT(lines, testing::Contains("record checkpoint distilled 99"));
  EXPECT_THAT(lines, testing::Not(testing::Contains("record checkpoint distilled 1"))) << "so many are not kept";
  EXPECT_THAT(lines, testing::Contains(HasSubstr("record done distilled w")));
}

TEST_F(AdoptionTest, WhenNoneOfThemComesNewcomersNeedNotWaitLong) {
  Restart();
  Prepared();
  WorkerJoins(8);
  WorkerJoins(9);
  EXPECT_THAT(Beat(milliseconds(2900), {8, 9}), IsEmpty());
  EXPECT_THAT(Beat(milliseconds(100), {8, 9}),
              ElementsAre("record generation 7", "assign 8 distilled 7 rank 0/2", "assign 9 distilled 7 rank 1/2"));
}

TEST_F(AdoptionTest, TheLastGenerationOfAFinishedJobIsOver) {
  Start({Elastic(1, 2, 2)}, {}, {6, "gold", {"a", "b"}});
  Prepared();
  WorkerComesBack(1, "a", 6, true);
  EXPECT_THAT(WorkerComesBack(2, "b", 6, true),
              ElementsAre("welcome 2", "record generation 7", "assign 1 distilled 7 rank 0/2",
                          "assign 2 distilled 7 rank 1/2"));
}

}  // namespace
}  // namespace polystill::coordinator
