#include "coordinator/run_machine_fixture.h"

namespace polystill::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST_F(RunMachineTest, AWholeRun) {
  Start({Train("teacher:english", 2), Train("distilled", 2, {"english"}), EvaluateJob()}, {TrainedTeacher()});
  EXPECT_THAT(WorkerJoins(1), ElementsAre("welcome 1"));
  EXPECT_THAT(TeacherJoins(9), ElementsAre("welcome 9"));
  EXPECT_THAT(Prepared(), ElementsAre("record segment teacher:english", "record segment distilled"));
  EXPECT_EQ(Status().stages(1).waiting_for(), "1 of 2 workers");
  EXPECT_THAT(WorkerJoins(2), ElementsAre("welcome 2", "record generation 1", "assign 1 teacher:english 1 rank 0/2",
                                          "assign 2 teacher:english 1 rank 1/2"));
  EXPECT_EQ(Status().stages(1).waiting_for(), "");
  EXPECT_THAT(WorkerDone(2, 1, "w1"), IsEmpty());
  EXPECT_THAT(WorkerDone(1, 1, "w1"),
              ElementsAre("record done teacher:english w1 run/checkpoints/teacher:english/step-000000010-gen-1",
                          "clean run/checkpoints/teacher:english", "load 9 run/models/teacher:english"));
  EXPECT_EQ(Status().stages(2).waiting_for(), "teacher english (0 of 1 servers)");
  EXPECT_THAT(TeacherReady(9), ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2 teachers host:9=abc",
                                           "assign 2 distilled 2 rank 1/2 teachers host:9=abc"));
  WorkerDone(1, 2, "w2");
  EXPECT_THAT(WorkerDone(2, 2, "w2"),
              ElementsAre("record done distilled w2 run/checkpoints/distilled/step-000000010-gen-2",
                          "clean run/checkpoints/distilled", "record generation 3", "assign 1 evaluate 3 rank 0/1"));
  EXPECT_THAT(WorkerDone(1, 3, "", 0), ElementsAre("record done evaluate  ", "report"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  EXPECT_THAT(Do(ReportFinished{std::string("run/report.json")}), ElementsAre("stop 1", "stop 2", "stop 9"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_DONE);
  EXPECT_EQ(Status().report(), "run/report.json");
  EXPECT_THAT(Do(StreamClosed{1}), IsEmpty());
  EXPECT_THAT(Do(StreamClosed{2}), IsEmpty());
  EXPECT_THAT(Do(StreamClosed{9}), ElementsAre("end"));
  EXPECT_THAT(After(milliseconds(60000)), IsEmpty());
}

TEST_F(RunMachineTest, JobsTakeTheFirstWorkersInOrderOfArrival) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(5);
  Do(StreamClosed{5});
  WorkerJoins(3);
  EXPECT_THAT(WorkerJoins(2), ElementsAre("welcome 2", "record generation 1", "assign 3 distilled 1 rank 0/2",
                                          "assign 2 distilled 1 rank 1/2"));
  EXPECT_THAT(WorkerJoins(7), ElementsAre("welcome 7"));
}

TEST_F(RunMachineTest, ProgressIsThatOfTheRankWithTheFewestSteps) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  now_ += milliseconds(2500);
  WorkerProgress(1, 1, 4, 2.0, 100);
  WorkerProgress(2, 1, 5, 4.0, 90);
  // Of another generation: a worker that was taken for dead.
  WorkerProgress(2, 7, 9, 9.0, 900);
  const auto stage = Status().stages(1);
  EXPECT_EQ(stage.done(), 4);
  EXPECT_EQ(stage.total(), 10);
  EXPECT_EQ(stage.records(), 100);
  EXPECT_EQ(stage.records_by_language().at("de"), 100);
  EXPECT_EQ(stage.labels(), 100);
  EXPECT_EQ(stage.label_bytes(), 4000);
  EXPECT_DOUBLE_EQ(stage.loss(), 3.0);
  EXPECT_DOUBLE_EQ(stage.seconds(), 2.5);
  EXPECT_EQ(Status().current(), 1);
  EXPECT_TRUE(Status().stages(0).finished());
}

TEST_F(RunMachineTest, ReplicasApartFailTheRun) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerDone(1, 1, "w1");
  EXPECT_THAT(WorkerDone(2, 1, "other"), ElementsAre("stop 1", "stop 2"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("replicas apart"));
  EXPECT_THAT(Status().reason(), HasSubstr("w1"));
  EXPECT_THAT(Status().reason(), HasSubstr("other"));
}

struct DoneCase {
  std::string name;
  std::string digest;
  int64_t step;
  std::string reason;
};
class FalseDone : public RunMachineTest, public testing::WithParamInterface<DoneCase> {};
TEST_P(FalseDone, FailsTheRun) {
  Start({Train("distilled", 1)});
  Prepared();
  WorkerJoins(1);
  WorkerDone(1, 1, GetParam().digest, GetParam().step);
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr(GetParam().reason));
}
INSTANTIATE_TEST_SUITE_P(Cases, FalseDone,
                         testing::Values(DoneCase{"StepsMissing", "w", 9, "9 of 10 steps"},
                                         DoneCase{"NoDigest", "", 10, "without a digest"}),
                         [](const auto& info) { return info.param.name; });

TEST_F(RunMachineTest, ACoordinatorThatStoodStillForgetsNobody) {
  Start({Train("distilled", 2)}, {PackagedTeacher(1)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  TeacherJoins(9);
  Do(StreamOpened{7});
  After(milliseconds(3000));
  now_ += milliseconds(60'000);
  WorkerBeats(1);
  EXPECT_THAT(Do(Tick{}), IsEmpty());
  // The others have what was left to them before; nobody more than the whole time.
  EXPECT_THAT(After(milliseconds(1999)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("close 7 DEADLINE_EXCEEDED", "close 2 DEADLINE_EXCEEDED",
                                                  "regroup 1 1", "close 9 DEADLINE_EXCEEDED"));
}

TEST_F(RunMachineTest, WhoeverIsSilentIsGoneThoughEveryTickIsLate) {
  Start({Train("distilled", 2)}, {PackagedTeacher(1)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  TeacherJoins(9);
  Do(StreamOpened{7});
  std::vector<std::string> lines;
  for (int i = 0; i < 6; ++i) {
    WorkerBeats(1);
    now_ += milliseconds(1500);
    for (std::string& line : Do(Tick{})) lines.push_back(std::move(line));
  }
  EXPECT_THAT(lines, ElementsAre("close 7 DEADLINE_EXCEEDED", "close 2 DEADLINE_EXCEEDED", "regroup 1 1",
                                 "close 9 DEADLINE_EXCEEDED"));
}

TEST_F(RunMachineTest, AStreamThatNeverSaysHelloIsClosed) {
  Start({Train("distilled", 1)});
  Do(StreamOpened{4});
  EXPECT_THAT(After(milliseconds(4999)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("close 4 DEADLINE_EXCEEDED"));
}

TEST_F(RunMachineTest, AWorkerThatLeavesBetweenJobsIsReplaced) {
  Start({Train("distilled", 1), EvaluateJob()});
  WorkerJoins(1);
  Prepared();
  WorkerJoins(2);
  WorkerDone(1, 1, "w");
  Do(StreamClosed{2});
  // Worker 1 has the evaluation: another does it again from its beginning.
  EXPECT_THAT(Do(StreamClosed{1}), IsEmpty());
  EXPECT_EQ(Status().stages(2).waiting_for(), "0 of 1 workers");
  EXPECT_THAT(WorkerJoins(3), ElementsAre("welcome 3", "record generation 3", "assign 3 evaluate 3 rank 0/1"));
}

TEST_F(RunMachineTest, StopTellsEverybodyAndLeavesAfterTenSecondsAtMost) {
  Start({Train("distilled", 1)});
  WorkerJoins(1);
  EXPECT_THAT(Do(StopAsked{"Ctrl-C"}), ElementsAre("stop 1"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_STOPPED);
  EXPECT_EQ(Status().reason(), "Ctrl-C");
  EXPECT_THAT(Do(StopAsked{"again"}), IsEmpty());
  Do(StreamOpened{2});
  EXPECT_THAT(Do(WorkerSaid{2, Hello("late")}), ElementsAre("close 2 UNAVAILABLE"));
  now_ += milliseconds(4900);
  WorkerBeats(1);
  now_ += milliseconds(4900);
  WorkerBeats(1);
  EXPECT_THAT(After(milliseconds(199)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("end"));
}

TEST_F(RunMachineTest, AStoppedTrainingKeepsItsTeachersToItsLastStep) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  Prepared();
  TeacherJoins(9);
  TeacherReady(9, "abc");
  WorkerJoins(1);
  WorkerProgress(1, 1, 4, 2.0, 100);
  EXPECT_THAT(Do(StopAsked{"Ctrl-C"}), ElementsAre("stop 1"));
  EXPECT_THAT(Do(StreamClosed{1}), ElementsAre("stop 9"));
  EXPECT_THAT(Do(StreamClosed{9}), ElementsAre("end"));
}

TEST_F(RunMachineTest, AStopBeforeTheFirstStepWaitsForNoCheckpoint) {
  Start({Train("distilled", 2, {"english"})}, {PackagedTeacher(1)});
  Prepared();
  TeacherJoins(9);
  TeacherReady(9, "abc");
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerProgress(1, 1, 4, 2.0, 100);
  EXPECT_THAT(Do(StopAsked{"Ctrl-C"}), ElementsAre("stop 1", "stop 2", "stop 9"));
  Do(StreamClosed{1});
  Do(StreamClosed{9});
  now_ += milliseconds(4900);
  WorkerBeats(2);
  now_ += milliseconds(4900);
  WorkerBeats(2);
  EXPECT_THAT(After(milliseconds(200)), ElementsAre("end"));
}

TEST_F(RunMachineTest, AReasonIsTextWhateverAFileIsCalled) {
  Start({Train("distilled", 1)});
  Do(StagesFinished{absl::NotFoundError("caf\xe9.jsonl: no such file")});
  EXPECT_EQ(Status().reason(), "caf\\xe9.jsonl: no such file");
}

TEST_F(RunMachineTest, AFailedStageFailsTheRun) {
  Start({Train("distilled", 1)});
  Do(StageProgress{"index", 5, 0, 5, {{"de", 5}}});
  EXPECT_EQ(Status().stages(0).records(), 5);
  Do(StagesFinished{absl::InvalidArgumentError("a.jsonl: no column 'language'")});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("a.jsonl"));
}

TEST_F(RunMachineTest, AStoreThatCannotWriteFailsTheRun) {
  Start({Train("distilled", 1)});
  Do(StoreFailed{absl::ResourceExhaustedError("coordinator.sqlite: disk full")});
  EXPECT_THAT(Status().reason(), HasSubstr("disk full"));
}

// First messages that are refused, on a stream of their own; a worker that is there already is not harmed.
struct HostileCase {
  std::string name;
  v1::WorkerMessage message;
  std::string action;
};
class HostileWorker : public RunMachineTest, public testing::WithParamInterface<HostileCase> {
 public:
  static v1::WorkerMessage Progress() {
    v1::WorkerMessage message;
    message.mutable_progress();
    return message;
  }
  static v1::WorkerMessage HelloOf(const std::string& id, int version) { return Hello(id, version); }
};
TEST_P(HostileWorker, IsRefused) {
  Start({Train("distilled", 1)});
  Prepared();
  WorkerJoins(1);
  Do(StreamOpened{2});
  EXPECT_THAT(Do(WorkerSaid{2, GetParam().message}), ElementsAre(GetParam().action));
  EXPECT_THAT(Do(WorkerSaid{2, GetParam().message}), IsEmpty());
  EXPECT_THAT(Do(StreamClosed{2}), IsEmpty());
  WorkerDone(1, 1, "w");
  EXPECT_TRUE(Status().stages(1).finished());
}
INSTANTIATE_TEST_SUITE_P(
    Cases, HostileWorker,
    testing::Values(HostileCase{"NoHello", HostileWorker::Progress(), "close 2 INVALID_ARGUMENT"},
                    HostileCase{"Nothing", {}, "close 2 INVALID_ARGUMENT"},
                    HostileCase{"OtherVersion", HostileWorker::HelloOf("w", 99), "close 2 FAILED_PRECONDITION"},
                    HostileCase{"TakenId", HostileWorker::HelloOf("worker-1", kProtocolVersion),
                                "close 2 ALREADY_EXISTS"},
                    HostileCase{"NoId", HostileWorker::HelloOf("", kProtocolVersion), "close 2 INVALID_ARGUMENT"},
                    HostileCase{"LongId", HostileWorker::HelloOf(std::string(5000, 'x'), kProtocolVersion),
                                "close 2 INVALID_ARGUMENT"}),
    [](const auto& info) { return info.param.name; });

TEST_F(RunMachineTest, AWorkerThatBreaksTheProtocolInItsJobIsDropped) {
  Start({Train("distilled", 1)});
  Prepared();
  WorkerJoins(1);
  EXPECT_THAT(Do(WorkerSaid{1, Hello("worker-1")}), ElementsAre("close 1 INVALID_ARGUMENT"));
  EXPECT_THAT(WorkerJoins(2), ElementsAre("welcome 2", "record generation 2", "assign 2 distilled 2 rank 0/1"));
}

TEST_F(RunMachineTest, AWorkerThatFailsByItselfFailsTheRun) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  WorkerLeaves(2, 1, absl::StatusCode::kAborted);
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING) << "a consequence";
  EXPECT_THAT(WorkerFails(1, 1, absl::StatusCode::kDataLoss, "record r7: label is NaN"),
              ElementsAre("stop 1", "stop 2"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("worker 0 (pid 0 on 127.0.0.1): record r7"));
}

TEST_F(RunMachineTest, ALaterCoordinatorEndsThisOneWithoutAWord) {
  Start({Train("distilled", 1)}, {PackagedTeacher(1)});
  Prepared();
  WorkerJoins(1);
  TeacherJoins(9);
  EXPECT_THAT(Do(Superseded{absl::FailedPreconditionError("a later coordinator has taken over")}), ElementsAre("end"));
  EXPECT_THAT(After(milliseconds(60'000)), testing::Not(testing::Contains(HasSubstr("stop"))));
  EXPECT_THAT(Status().reason(), HasSubstr("taken over"));
}

}  // namespace
}  // namespace polystill::coordinator
