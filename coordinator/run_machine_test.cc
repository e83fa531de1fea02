#include "coordinator/run_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/rpc.h"

namespace polystill::coordinator {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// An action in a line, so that tables can be read; empty for log lines.
struct Describe {
  std::string operator()(const SendToWorker& a) const {
    if (a.order.has_welcome()) return absl::StrCat("welcome ", a.stream);
    if (a.order.has_stop()) return absl::StrCat("stop ", a.stream);
    const auto& x = a.order.assignment();
    return absl::StrCat("assign ", a.stream, " ", x.job().name(), " ", x.generation(), " rank ", x.rank(), "/",
                        x.world_size(), x.teachers_size() > 0 ? " teachers " : "",
                        absl::StrJoin(x.teachers(), ",", [](std::string* out, const v1::TeacherEndpoint& t) {
                          absl::StrAppend(out, t.address(), t.store(), "=", t.digest());
                        }));
  }
  std::string operator()(const SendToTeacher& a) const {
    if (a.order.has_welcome()) return absl::StrCat("welcome ", a.stream);
    if (a.order.has_stop()) return absl::StrCat("stop ", a.stream);
    return absl::StrCat("load ", a.stream, " ", a.order.load().package());
  }
  std::string operator()(const CloseStream& a) const {
    return absl::StrCat("close ", a.stream, " ", absl::StatusCodeToString(a.status.code()));
  }
  std::string operator()(const DescribeTeacher& a) const {
    return absl::StrCat("describe ", a.teacher, " ", a.address);
  }
  std::string operator()(const RecordGeneration& a) const { return absl::StrCat("record generation ", a.generation); }
  std::string operator()(const RecordSegment& a) const { return absl::StrCat("record segment ", a.job); }
  std::string operator()(const RecordInput& a) const { return absl::StrCat("record input ", a.key, " ", a.digest); }
  std::string operator()(const RecordFinishedJob& a) const {
    return absl::StrCat("record done ", a.job, " ", a.weights_digest, " ", a.checkpoint);
  }
  std::string operator()(const RecordCheckpoint& a) const {
    return absl::StrCat("record checkpoint ", a.job, " ", a.checkpoint.step);
  }
  std::string operator()(const DropCheckpoint& a) const { return absl::StrCat("drop ", a.path); }
  std::string operator()(const WriteReport&) const { return "report"; }
  std::string operator()(const Log&) const { return ""; }
  std::string operator()(const EndRun&) const { return "end"; }
};

v1::Teacher TrainedTeacher() {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.mutable_train();
  teacher.set_replicas(1);
  return teacher;
}

v1::Teacher PackagedTeacher(int replicas) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_package("packages/english");
  teacher.set_replicas(replicas);
  return teacher;
}

PlannedJob Train(const std::string& name, int workers, std::vector<std::string> teachers = {}) {
  PlannedJob planned;
  planned.job.set_name(name);
  planned.job.set_kind(v1::Job::KIND_TRAIN);
  planned.job.set_steps(10);
  planned.job.set_checkpoints("run/checkpoints/" + name);
  planned.job.set_package("run/models/" + name);
  planned.teachers = std::move(teachers);
  planned.workers = workers;
  return planned;
}

PlannedJob EvaluateJob() {
  PlannedJob planned;
  planned.job.set_name("evaluate");
  planned.job.set_kind(v1::Job::KIND_EVALUATE);
  planned.workers = 1;
  return planned;
}

// Drives a machine with events by hand, by a clock that only the test moves.
class RunMachineTest : public testing::Test {
 protected:
  void Start(std::vector<PlannedJob> jobs, std::vector<v1::Teacher> teachers = {}) {
    RunConfig config;
    config.run = "topics";
    config.term = 1;
    config.store_host = "127.0.0.1";
    config.store_port = 4242;
    config.stages = {"index"};
    for (const PlannedJob& planned : jobs) config.stages.push_back(planned.job.name());
    config.teachers = std::move(teachers);
    config.labels = {"net", "devel"};
    machine_.emplace(std::move(config), now_);
    jobs_ = std::move(jobs);
  }

  std::vector<std::string> Do(const Event& event) {
    std::vector<std::string> lines;
    for (const Action& action : machine_->Handle(event, now_)) {
      if (std::string line = std::visit(Describe(), action); !line.empty()) lines.push_back(std::move(line));
    }
    return lines;
  }

  // Ticks as often as the loop does.
  std::vector<std::string> After(milliseconds time) {
    std::vector<std::string> lines;
    for (milliseconds step{}; time > step.zero(); time -= step) {
      step = std::min(time, milliseconds(100));
      now_ += step;
      for (std::string& line : Do(Tick{})) lines.push_back(std::move(line));
    }
    return lines;
  }

  std::vector<std::string> Prepared() {
    PreparedJobs prepared{jobs_, {}};
    for (const PlannedJob& planned : jobs_) prepared.totals[planned.job.name()] = 10;
    return Do(StagesFinished{prepared});
  }

  std::vector<std::string> WorkerJoins(StreamId stream, const std::string& id = "") {
    Do(StreamOpened{stream});
    return Do(WorkerSaid{stream, Hello(id.empty() ? absl::StrCat("worker-", stream) : id)});
  }

  static v1::WorkerMessage Hello(const std::string& id, int version = kProtocolVersion) {
    v1::WorkerMessage message;
    message.mutable_hello()->set_protocol_version(version);
    message.mutable_hello()->set_worker_id(id);
    message.mutable_hello()->set_host("127.0.0.1");
    return message;
  }

  std::vector<std::string> TeacherJoins(StreamId stream, const std::string& name = "english",
                                        const std::string& id = "") {
    Do(StreamOpened{stream});
    v1::TeacherMessage message;
    message.mutable_hello()->set_protocol_version(kProtocolVersion);
    message.mutable_hello()->set_server_id(id.empty() ? absl::StrCat("server-", stream) : id);
    message.mutable_hello()->set_teacher(name);
    message.mutable_hello()->set_address(absl::StrCat("host:", stream));
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> TeacherReady(StreamId stream, const std::string& digest = "abc") {
    v1::TeacherMessage message;
    message.mutable_ready()->set_digest(digest);
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> TeacherFails(StreamId stream, const std::string& why) {
    v1::TeacherMessage message;
    message.mutable_failed()->set_message(why);
    return Do(TeacherSaid{stream, message});
  }

  std::vector<std::string> WorkerProgress(StreamId stream, int64_t generation, int64_t step, double loss,
                                          int64_t records) {
    v1::WorkerMessage message;
    auto& progress = *message.mutable_progress();
    progress.set_generation(generation);
    progress.set_step(step);
    progress.set_loss(loss);
    (*progress.mutable_records())["de"] = records;
    progress.set_labels(records);
    progress.set_label_bytes(40 * records);
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerDone(StreamId stream, int64_t generation, const std::string& digest,
                                      int64_t step = 10) {
    v1::WorkerMessage message;
    message.mutable_done()->mutable_progress()->set_generation(generation);
    message.mutable_done()->mutable_progress()->set_step(step);
    message.mutable_done()->set_weights_digest(digest);
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerFails(StreamId stream, int64_t generation, absl::StatusCode code,
                                       const std::string& why) {
    v1::WorkerMessage message;
    message.mutable_failed()->set_generation(generation);
    message.mutable_failed()->set_code(static_cast<int>(code));
    message.mutable_failed()->set_message(why);
    return Do(WorkerSaid{stream, message});
  }

  std::vector<std::string> WorkerBeats(StreamId stream) {
    v1::WorkerMessage message;
    message.mutable_heartbeat();
    return Do(WorkerSaid{stream, message});
  }

  v1::RunStatus Status() const { return machine_->Status(now_); }

  Instant now_{std::chrono::hours(1)};
  std::optional<RunMachine> machine_;
  std::vector<PlannedJob> jobs_;
};

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
              ElementsAre("record done teacher:english w1 run/checkpoints/teacher:english/step-000000010",
                          "load 9 run/models/teacher:english"));
  EXPECT_EQ(Status().stages(2).waiting_for(), "teacher english (0 of 1 servers)");
  EXPECT_THAT(TeacherReady(9), ElementsAre("record generation 2", "assign 1 distilled 2 rank 0/2 teachers host:9=abc",
                                           "assign 2 distilled 2 rank 1/2 teachers host:9=abc"));
  WorkerDone(1, 2, "w2");
  EXPECT_THAT(WorkerDone(2, 2, "w2"), ElementsAre("record done distilled w2 run/checkpoints/distilled/step-000000010",
                                                  "record generation 3", "assign 1 evaluate 3 rank 0/1"));
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

TEST_F(RunMachineTest, PackagedTeachersLoadAtOnceAndAllReplicasAreNeeded) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(2)});
  EXPECT_THAT(TeacherJoins(9), ElementsAre("welcome 9", "load 9 packages/english"));
  Prepared();
  WorkerJoins(1);
  EXPECT_THAT(TeacherReady(9), IsEmpty());
  EXPECT_EQ(Status().stages(1).waiting_for(), "teacher english (1 of 2 servers)");
  TeacherJoins(10);
  EXPECT_THAT(TeacherReady(10),
              ElementsAre("record generation 1", "assign 1 distilled 1 rank 0/1 teachers host:9=abc,host:10=abc"));
}

TEST_F(RunMachineTest, AddressTeachersAreAskedAndUsedAsTheyAre) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_address("far:50051");
  Start({Train("distilled", 1, {"english"})}, {teacher});
  EXPECT_THAT(Prepared(), ElementsAre("record segment distilled", "describe english far:50051"));
  WorkerJoins(1);
  EXPECT_EQ(Status().stages(1).waiting_for(), "teacher english");
  v1::DescribeReply reply;
  reply.set_digest("abc");
  reply.mutable_signature()->add_labels("net");
  reply.mutable_signature()->add_labels("devel");
  EXPECT_THAT(Do(TeacherDescribed{"english", reply}),
              ElementsAre("record input teachers.0.address abc", "record generation 1",
                          "assign 1 distilled 1 rank 0/1 teachers far:50051=abc"));
  EXPECT_THAT(TeacherJoins(9), ElementsAre("close 9 FAILED_PRECONDITION"));
}

TEST_F(RunMachineTest, TeachersWithAStoreNeedNoServer) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_store("labels");
  Start({Train("distilled", 1, {"english"})}, {teacher});
  Prepared();
  EXPECT_THAT(WorkerJoins(1),
              ElementsAre("welcome 1", "record generation 1", "assign 1 distilled 1 rank 0/1 teachers labels="));
  EXPECT_THAT(TeacherJoins(9), ElementsAre("close 9 FAILED_PRECONDITION"));
}

TEST_F(RunMachineTest, AnAddressTeacherThatIsStillLoadingIsAskedAgain) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_address("far:50051");
  const absl::Status loading = absl::UnavailableError("the teacher is not loaded yet");
  v1::DescribeReply reply;
  reply.mutable_signature()->add_labels("net");
  reply.mutable_signature()->add_labels("devel");

  Start({Train("distilled", 1, {"english"})}, {teacher});
  Prepared();
  EXPECT_THAT(Do(TeacherDescribed{"english", loading}), IsEmpty());
  EXPECT_THAT(After(milliseconds(999)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("describe english far:50051"));
  EXPECT_THAT(After(milliseconds(5000)), IsEmpty()) << "one question at a time";
  reply.set_digest("abc");
  Do(TeacherDescribed{"english", reply});
  EXPECT_THAT(WorkerJoins(1),
              ElementsAre("welcome 1", "record generation 1", "assign 1 distilled 1 rank 0/1 teachers far:50051=abc"));

  Start({Train("distilled", 1, {"english"})}, {teacher});
  Prepared();
  After(RunMachine::kLoadWithin);
  Do(TeacherDescribed{"english", loading});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("not loaded yet"));

  Start({Train("distilled", 1, {"english"})}, {teacher});
  Prepared();
  reply.clear_digest();
  Do(TeacherDescribed{"english", reply});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("no digest"));
}

TEST_F(RunMachineTest, AnAddressTeacherWithOtherClassesFailsTheRun) {
  v1::Teacher teacher;
  teacher.set_name("english");
  teacher.set_address("far:50051");
  Start({Train("distilled", 1, {"english"})}, {teacher});
  Prepared();
  v1::DescribeReply reply;
  reply.mutable_signature()->add_labels("cats");
  Do(TeacherDescribed{"english", reply});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("cats"));
}

TEST_F(RunMachineTest, ProgressIsSummedOverRanks) {
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
  EXPECT_EQ(stage.records(), 190);
  EXPECT_EQ(stage.records_by_language().at("de"), 190);
  EXPECT_EQ(stage.labels(), 190);
  EXPECT_EQ(stage.label_bytes(), 7600);
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

// What three workers say, and when, in milliseconds; and the reason that the run's failure gives.
struct Loss {
  int at_ms;
  StreamId stream;
  // "gone", or a message of Failed.
  std::string what;
  absl::StatusCode code = absl::StatusCode::kAborted;
};
struct CauseCase {
  std::string name;
  std::vector<Loss> losses;
  std::string reason;
  // Whether the machine must wait for the window to end.
  bool waits;
};
class RootCause : public RunMachineTest, public testing::WithParamInterface<CauseCase> {};
TEST_P(RootCause, IsPreferredOverConsequences) {
  Start({Train("distilled", 3)});
  Prepared();
  for (const StreamId stream : {1, 2, 3}) WorkerJoins(stream);
  const Instant begin = now_;
  for (const Loss& loss : GetParam().losses) {
    now_ = begin + milliseconds(loss.at_ms);
    EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
    if (loss.what == "gone") {
      Do(StreamClosed{loss.stream});
    } else {
      WorkerFails(loss.stream, 1, loss.code, loss.what);
    }
  }
  EXPECT_EQ(Status().state(), GetParam().waits ? v1::RunStatus::STATE_RUNNING : v1::RunStatus::STATE_FAILED);
  now_ = begin + milliseconds(GetParam().losses.front().at_ms) + milliseconds(999);
  if (GetParam().waits) {
    EXPECT_THAT(Do(Tick{}), IsEmpty());
  }
  After(milliseconds(1));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr(GetParam().reason));
}
INSTANTIATE_TEST_SUITE_P(
    Cases, RootCause,
    testing::Values(CauseCase{"KilledFirst", {{0, 2, "gone"}, {160, 1, "connection closed"}}, "worker 1 ", true},
                    CauseCase{"SurvivorsAreHeardFirst",
                              {{0, 1, "connection closed"}, {10, 3, "connection reset"}, {200, 2, "gone"}},
                              "worker 1 (pid 0 on 127.0.0.1) is gone",
                              false},
                    CauseCase{
                        "NotFiniteLabels",
                        {{0, 1, "connection closed"}, {50, 3, "record r7: label is NaN", absl::StatusCode::kDataLoss}},
                        "record r7",
                        true},
                    CauseCase{"FirstOfTwoRealCauses",
                              {{0, 3, "record r7: label is NaN", absl::StatusCode::kDataLoss}, {20, 2, "gone"}},
                              "record r7",
                              true},
                    CauseCase{"OneThatFailedMayLeave",
                              {{0, 3, "record r7: label is NaN", absl::StatusCode::kDataLoss}, {5, 3, "gone"}},
                              "record r7",
                              true},
                    CauseCase{"NoTeacherAnswers",
                              {{0, 1, "connection closed"},
                               {5, 3, "teacher at host:9 does not answer", absl::StatusCode::kUnavailable}},
                              "host:9",
                              true},
                    CauseCase{"OnlyConsequences", {{0, 1, "connection closed by host:5"}}, "host:5", true}),
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
  EXPECT_THAT(After(milliseconds(1)),
              ElementsAre("close 7 DEADLINE_EXCEEDED", "close 2 DEADLINE_EXCEEDED", "close 9 DEADLINE_EXCEEDED"));
}

TEST_F(RunMachineTest, ASilentWorkerIsGoneAfterFiveSeconds) {
  Start({Train("distilled", 2)});
  Prepared();
  WorkerJoins(1);
  WorkerJoins(2);
  After(milliseconds(3000));
  WorkerBeats(1);
  EXPECT_THAT(After(milliseconds(1999)), IsEmpty());
  EXPECT_THAT(After(milliseconds(1)), ElementsAre("close 2 DEADLINE_EXCEEDED"));
  WorkerBeats(1);
  EXPECT_THAT(After(milliseconds(1000)), ElementsAre("stop 1"));
  EXPECT_THAT(Status().reason(), HasSubstr("nothing heard for 5 s"));
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
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  // Worker 1 has the evaluation: losing it fails the run; losing the idle one does not.
  Do(StreamClosed{2});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  Do(StreamClosed{1});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
}

TEST_F(RunMachineTest, LosingTheLastServerOfATeacherInUseFailsTheRun) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  Prepared();
  TeacherJoins(8);
  TeacherReady(8);
  TeacherJoins(9);
  TeacherReady(9);
  WorkerJoins(1);
  Do(StreamClosed{8});
  EXPECT_THAT(After(milliseconds(1000)), IsEmpty());
  Do(StreamClosed{9});
  WorkerFails(1, 1, absl::StatusCode::kUnavailable, "no teacher answers");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("its last server, at host:9"));
}

TEST_F(RunMachineTest, ATeacherThatCannotLoadFailsTheRun) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  TeacherJoins(9);
  EXPECT_THAT(TeacherFails(9, "packages/english/teacher.yaml: no such file"), ElementsAre("stop 9"));
  EXPECT_THAT(Status().reason(), HasSubstr("teacher english at host:9: packages/english/teacher.yaml"));
}

TEST_F(RunMachineTest, ServersOfOneTeacherMustServeTheSamePackage) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(2)});
  TeacherJoins(8);
  TeacherJoins(9);
  TeacherReady(8, "abc");
  TeacherReady(9, "xyz");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("host:9 serves package xyz"));
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

TEST_F(RunMachineTest, HostileTeachersAreRefused) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  TeacherJoins(1);
  EXPECT_THAT(TeacherJoins(2, "klingon"), ElementsAre("close 2 NOT_FOUND"));
  EXPECT_THAT(TeacherJoins(3, "english", "server-1"), ElementsAre("close 3 ALREADY_EXISTS"));
  EXPECT_THAT(TeacherReady(1, ""), ElementsAre("close 1 INVALID_ARGUMENT"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

TEST_F(RunMachineTest, AWorkerThatBreaksTheProtocolInItsJobFailsTheRunByName) {
  Start({Train("distilled", 1)});
  Prepared();
  WorkerJoins(1);
  Do(WorkerSaid{1, Hello("worker-1")});
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("distilled: worker 0"));
}

}  // namespace
}  // namespace polystill::coordinator
