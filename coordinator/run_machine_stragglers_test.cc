#include "coordinator/run_machine_fixture.h"

namespace polystill::coordinator {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Code = absl::StatusCode;

// A training of `fewest` to `most` workers that starts with as many.
PlannedJob Elastic(int fewest, int most, double evict_slower_than = 0) {
  PlannedJob planned = Train("distilled", most);
  planned.min_workers = fewest;
  planned.max_workers = most;
  planned.last_call = milliseconds(10'000);
  planned.job.mutable_plan()->set_batch_size(60);
  planned.evict_slower_than = evict_slower_than;
  return planned;
}

class StragglersTest : public RunMachineTest {
 protected:
  // `count` workers, streams from 1 on, in generation 1.
  void Work(PlannedJob planned, int count) {
    planned.workers = count;
    Start({planned});
    Prepared();
    for (StreamId stream = 1; stream <= count; ++stream) WorkerJoins(stream);
    ASSERT_EQ(Status().stages(1).generation(), 1);
    for (StreamId stream = 1; stream <= count; ++stream) WorkerAgrees(stream, 1, "d");
  }

  // So many seconds, in each of which every one of them applies a step that takes it so long.
  std::vector<std::string> Step(int seconds, int64_t generation, const std::map<StreamId, double>& own_seconds) {
    std::vector<std::string> lines;
    const auto add = [&lines](std::vector<std::string> more) { lines.insert(lines.end(), more.begin(), more.end()); };
    for (; seconds > 0; --seconds) {
      ++step_;
      for (const auto& [stream, own] : own_seconds) {
        v1::WorkerMessage message;
        message.mutable_progress()->set_generation(generation);
        message.mutable_progress()->set_step(step_);
        message.mutable_progress()->set_own_seconds(own);
        add(Do(WorkerSaid{stream, message}));
      }
      add(After(milliseconds(1000)));
    }
    return lines;
  }

  // Seconds in which every one of them says that its training thread has begun `begun`, and whether that is idle.
  std::vector<std::string> Beat(int seconds, const std::vector<StreamId>& streams, int64_t begun = 0,
                                bool idle = false) {
    std::vector<std::string> lines;
    for (; seconds > 0; --seconds) {
      for (const StreamId stream : streams) WorkerBeats(stream, begun, idle);
      for (std::string& line : After(milliseconds(1000))) lines.push_back(std::move(line));
    }
    return lines;
  }

  v1::RunStatus::Stage Stage() const { return Status().stages(1); }

  int64_t step_ = 0;
};

TEST_F(StragglersTest, ASlowMemberIsNamedUntilItIsAsFastAsTheOthers) {
  Work(Elastic(1, 3), 3);
  Step(9, 1, {{1, 0.1}, {2, 0.16}, {3, 0.1}});
  EXPECT_EQ(Stage().slow_workers_size(), 0);
  const int64_t revision = machine_->revision();
  EXPECT_THAT(Step(1, 1, {{1, 0.1}, {2, 0.16}, {3, 0.1}}), IsEmpty());
  ASSERT_EQ(Stage().slow_workers_size(), 1);
  EXPECT_EQ(Stage().slow_workers(0).rank(), 1);
  EXPECT_EQ(Stage().slow_workers(0).worker_id(), "worker-2");
  EXPECT_EQ(Stage().slow_workers(0).host(), "127.0.0.1");
  EXPECT_DOUBLE_EQ(Stage().slow_workers(0).ratio(), 1.6);
  EXPECT_GT(machine_->revision(), revision);
  Step(9, 1, {{1, 0.1}, {2, 0.11}, {3, 0.1}});
  EXPECT_EQ(Stage().slow_workers_size(), 1);
  Step(1, 1, {{1, 0.1}, {2, 0.11}, {3, 0.1}});
  EXPECT_EQ(Stage().slow_workers_size(), 0);
}

TEST_F(StragglersTest, NobodyIsNamedWhileAllWait) {
  Work(Elastic(1, 2), 2);
  Step(1, 1, {{1, 0.1}, {2, 9}});
  // Both wait for a teacher, say.
  Beat(60, {1, 2}, 1);
  EXPECT_EQ(Stage().slow_workers_size(), 0);
}

TEST_F(StragglersTest, NobodyIsNamedBeforeAllHaveTold) {
  Work(Elastic(1, 3), 3);
  for (int i = 0; i < 30; ++i) {
    Step(1, 1, {{1, 0.1}, {2, 9}});
    WorkerBeats(3, 1);
  }
  EXPECT_EQ(Stage().slow_workers_size(), 0);
}

TEST_F(StragglersTest, WithoutTheKeyNobodyIsLeftOut) {
  Work(Elastic(1, 3), 3);
  EXPECT_THAT(Step(100, 1, {{1, 0.1}, {2, 9}, {3, 0.1}}), IsEmpty());
  EXPECT_EQ(Stage().slow_workers_size(), 1);
}

TEST_F(StragglersTest, AMemberBeyondTheLimitIsLeftOutAtABoundary) {
  Work(Elastic(1, 3, 3), 3);
  EXPECT_THAT(Step(9, 1, {{1, 0.1}, {2, 0.4}, {3, 0.1}}), IsEmpty());
  EXPECT_THAT(Step(1, 1, {{1, 0.1}, {2, 0.4}, {3, 0.1}}),
              ElementsAre("regroup 1 1 at boundary", "regroup 2 1 at boundary", "regroup 3 1 at boundary"));
  WorkerLeaves(2, 1);
  WorkerLeaves(1, 1);
  EXPECT_THAT(WorkerLeaves(3, 1),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
  ASSERT_EQ(Stage().evictions_size(), 1);
  EXPECT_EQ(Stage().evictions(0).worker().worker_id(), "worker-2");
  EXPECT_DOUBLE_EQ(Stage().evictions(0).worker().ratio(), 4);
  EXPECT_EQ(Stage().evictions(0).step(), 10);
  EXPECT_EQ(Stage().evictions(0).generation(), 1);
  EXPECT_EQ(Stage().workers(), 2);
  EXPECT_EQ(Stage().workers_wanted(), 3);
}

TEST_F(StragglersTest, SlowButWithinTheLimitStays) {
  Work(Elastic(1, 3, 3), 3);
  EXPECT_THAT(Step(60, 1, {{1, 0.1}, {2, 0.29}, {3, 0.1}}), IsEmpty());
  EXPECT_EQ(Stage().slow_workers_size(), 1);
}

TEST_F(StragglersTest, NobodyIsLeftOutWhoIsNeeded) {
  Work(Elastic(3, 3, 3), 3);
  EXPECT_THAT(Step(60, 1, {{1, 0.1}, {2, 0.9}, {3, 0.1}}), IsEmpty());
  EXPECT_EQ(Stage().evictions_size(), 0);
  // A spare takes its place: there are as many as before.
  EXPECT_THAT(WorkerJoins(4), ElementsAre("welcome 4"));
  EXPECT_THAT(Step(1, 1, {{1, 0.1}, {2, 0.9}, {3, 0.1}}),
              ElementsAre("regroup 1 1 at boundary", "regroup 2 1 at boundary", "regroup 3 1 at boundary"));
  WorkerLeaves(1, 1);
  WorkerLeaves(2, 1);
  EXPECT_THAT(WorkerLeaves(3, 1), ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/3",
                                              "assign 3 distilled 2 rank 1/3", "assign 4 distilled 2 rank 2/3"));
  EXPECT_THAT(Step(60, 2, {{1, 0.1}, {3, 0.1}, {4, 0.1}}), Not(Contains(HasSubstr("regroup"))));
}

TEST_F(StragglersTest, OneAtATime) {
  Work(Elastic(1, 4, 2), 4);
  EXPECT_THAT(Step(10, 1, {{1, 0.1}, {2, 0.9}, {3, 0.8}, {4, 0.1}}), Not(IsEmpty()));
  ASSERT_EQ(Stage().evictions_size(), 1);
  EXPECT_EQ(Stage().evictions(0).worker().worker_id(), "worker-2");
  for (const StreamId stream : {1, 2, 3, 4}) WorkerLeaves(stream, 1);
  EXPECT_THAT(After(milliseconds(1000)), IsEmpty()) << "nobody has agreed yet";
  for (const StreamId stream : {1, 3, 4}) WorkerAgrees(stream, 2, "d");
  WorkerBeats(2, 1, true);
  EXPECT_THAT(Step(4, 2, {{1, 0.1}, {3, 0.8}, {4, 0.1}}), IsEmpty());
  WorkerBeats(2, 1, true);
  EXPECT_THAT(Step(4, 2, {{1, 0.1}, {3, 0.8}, {4, 0.1}}), IsEmpty());
  WorkerBeats(2, 1, true);
  EXPECT_THAT(Step(2, 2, {{1, 0.1}, {3, 0.8}, {4, 0.1}}), Contains("regroup 3 2 at boundary"));
  ASSERT_EQ(Stage().evictions_size(), 2);
}

// Generation 2 of 1 and 3, in which 2 rests.
class RestingTest : public StragglersTest {
 protected:
  void SetUp() override {
    Work(Elastic(1, 3, 3), 3);
    Step(10, 1, {{1, 0.1}, {2, 0.4}, {3, 0.1}});
    for (const StreamId stream : {1, 2, 3}) WorkerLeaves(stream, 1);
    ASSERT_EQ(Stage().generation(), 2);
    ASSERT_EQ(Stage().workers(), 2);
    for (const StreamId stream : {1, 3}) WorkerAgrees(stream, 2, "d");
  }
};

TEST_F(RestingTest, ItIsAskedAgainAfterItsRest) {
  EXPECT_THAT(Beat(299, {1, 2, 3}), IsEmpty());
  EXPECT_THAT(Beat(2, {1, 2, 3}), ElementsAre("regroup 1 2 at boundary", "regroup 3 2 at boundary"));
  WorkerLeaves(1, 2);
  EXPECT_THAT(WorkerLeaves(3, 2), Contains("assign 2 distilled 3 rank 2/3"));
}

TEST_F(RestingTest, NewcomersTakeItsPlace) {
  EXPECT_THAT(WorkerJoins(4), ElementsAre("welcome 4", "regroup 1 2 at boundary", "regroup 3 2 at boundary"));
  WorkerLeaves(1, 2);
  EXPECT_THAT(WorkerLeaves(3, 2), Contains("assign 4 distilled 3 rank 2/3"));
  EXPECT_THAT(Beat(400, {1, 2, 3, 4}, 3), IsEmpty());
}

TEST_F(RestingTest, ItIsNoNewcomerForComingBack) {
  Do(StreamClosed{2});
  EXPECT_THAT(WorkerComesBack(5, "worker-2", 1, false), ElementsAre("welcome 5"));
}

TEST_F(RestingTest, ItIsAskedWhereThereAreTooFewOthers) {
  Do(StreamClosed{1});
  EXPECT_THAT(Do(StreamClosed{3}), ElementsAre("record generation 3", "assign 2 distilled 3 rank 0/1"));
  WorkerAgrees(2, 3, "d");
  // It holds the state that a newcomer is yet to get.
  EXPECT_THAT(WorkerJoins(6), ElementsAre("welcome 6", "regroup 2 3 at boundary"));
  EXPECT_THAT(WorkerLeaves(2, 3),
              ElementsAre("record generation 4", "assign 2 distilled 4 rank 0/2", "assign 6 distilled 4 rank 1/2"));
  EXPECT_THAT(WorkerAgrees(2, 4, "d"), IsEmpty());
  EXPECT_THAT(WorkerAgrees(6, 4, "d"), ElementsAre("regroup 2 4 at boundary", "regroup 6 4 at boundary"));
  WorkerLeaves(2, 4);
  EXPECT_THAT(WorkerLeaves(6, 4), ElementsAre("record generation 5", "assign 6 distilled 5 rank 0/1"));
}

TEST_F(StragglersTest, NobodyIsLeftOutWithTheOnlyState) {
  Work(Elastic(1, 2, 3), 2);
  EXPECT_THAT(Step(10, 1, {{1, 0.1}, {2, 0.4}}), Not(IsEmpty()));
  // Before the boundary the other one is interrupted while it applies a step.
  v1::WorkerMessage interrupted;
  v1::Standing& standing = *interrupted.mutable_interrupted()->mutable_standing();
  standing.set_generation(1);
  standing.set_step(-1);
  interrupted.mutable_interrupted()->set_code(static_cast<int>(Code::kAborted));
  EXPECT_THAT(Do(WorkerSaid{1, interrupted}), ElementsAre("regroup 2 1"));
  EXPECT_THAT(WorkerLeaves(2, 1),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 2 distilled 2 rank 1/2"));
  WorkerAgrees(2, 2, "d");
  EXPECT_THAT(WorkerAgrees(1, 2, "d"), ElementsAre("regroup 1 2 at boundary", "regroup 2 2 at boundary"));
}

class HangingTest : public StragglersTest {};

TEST_F(HangingTest, WhoDoesNotLeaveAtAnOrderIsGoneAfterThirtySeconds) {
  Work(Elastic(1, 3), 3);
  EXPECT_THAT(Do(StreamClosed{1}), ElementsAre("regroup 2 1", "regroup 3 1"));
  WorkerLeaves(2, 1);
  EXPECT_THAT(Beat(29, {2, 3}, 1), IsEmpty());
  EXPECT_THAT(Beat(1, {2, 3}, 1),
              ElementsAre("close 3 ABORTED", "record generation 2", "assign 2 distilled 2 rank 0/1"));
}

TEST_F(HangingTest, WhoIsGoneForThatCountsOnceItWaitsForOrders) {
  Work(Train("distilled", 2), 2);
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), ElementsAre("regroup 2 1"));
  EXPECT_THAT(Beat(30, {1, 2}, 1), ElementsAre("close 2 ABORTED"));
  EXPECT_EQ(Stage().waiting_for(), "1 of 2 workers");
  // It comes back at once, and hangs as before.
  EXPECT_THAT(WorkerComesBack(3, "worker-2", 1, false), ElementsAre("welcome 3"));
  EXPECT_THAT(Beat(60, {1, 3}, 1), IsEmpty());
  EXPECT_EQ(Stage().waiting_for(), "1 of 2 workers");
  EXPECT_THAT(WorkerBeats(3, 1, /*idle=*/true),
              ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
}

// Whoever reads its orders answers them, but the thread that trains hangs.
TEST_F(HangingTest, WhoNeverBeginsIsGoneThoughItAnswers) {
  Start({Elastic(2, 3)});
  Prepared();
  for (const StreamId stream : {1, 2, 3}) WorkerJoins(stream);
  const auto beat = [this](int seconds, int64_t begun) {
    std::vector<std::string> lines;
    for (; seconds > 0; --seconds) {
      WorkerBeats(3, 0);
      for (std::string& line : Beat(1, {1, 2}, begun)) lines.push_back(std::move(line));
    }
    return lines;
  };
  EXPECT_THAT(beat(20, 1), IsEmpty());
  // The others have waited for it in vain, and will again.
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), ElementsAre("regroup 2 1", "regroup 3 1"));
  WorkerLeaves(3, 1);
  EXPECT_THAT(WorkerLeaves(2, 1), Contains("assign 3 distilled 2 rank 2/3"));
  EXPECT_THAT(beat(9, 2), IsEmpty());
  EXPECT_THAT(beat(1, 2), ElementsAre("close 3 ABORTED", "regroup 1 2", "regroup 2 2"));
  WorkerLeaves(1, 2);
  EXPECT_THAT(WorkerLeaves(2, 2), Contains("assign 2 distilled 3 rank 1/2"));
}

TEST_F(HangingTest, ASignOfLifeIsEnoughBeforeTheAssignmentArrives) {
  Start({Elastic(1, 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerAgrees(1, 1, "d");
  EXPECT_THAT(Beat(60, {1, 2}, 0, /*idle=*/true), IsEmpty());
}

TEST_F(HangingTest, WhoStaysBehindAtABoundaryIsGoneInTheEnd) {
  Work(Elastic(1, 3), 2);
  EXPECT_THAT(WorkerJoins(3), Contains("regroup 1 1 at boundary"));
  EXPECT_THAT(Beat(60, {1, 2, 3}, 1), IsEmpty()) << "a step may take long";
  WorkerLeaves(1, 1);
  EXPECT_THAT(Beat(29, {1, 2, 3}, 1), IsEmpty());
  EXPECT_THAT(Beat(1, {1, 2, 3}, 1), ElementsAre("regroup 2 1"));
  EXPECT_THAT(Beat(30, {1, 2, 3}, 1), ElementsAre("close 2 ABORTED", "record generation 2",
                                                  "assign 1 distilled 2 rank 0/2", "assign 3 distilled 2 rank 1/2"));
}

TEST_F(HangingTest, ACoordinatorThatStoodStillCountsItsOwnPauseAgainstNobody) {
  Work(Elastic(1, 2), 2);
  EXPECT_THAT(WorkerLeaves(1, 1, Code::kAborted), ElementsAre("regroup 2 1"));
  now_ += milliseconds(60'000);
  EXPECT_THAT(After(milliseconds(100)), IsEmpty());
  EXPECT_THAT(Beat(29, {1, 2}, 1), IsEmpty());
}

}  // namespace
}  // namespace polystill::coordinator
