#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "checkpoint/path.h"
#include "coordinator/run_machine.h"
#include "runtime/rpc.h"

namespace polystill::coordinator {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kSteps = 100;

// The actions that this file is about, a line each.
struct Describe {
  std::string operator()(const SendToWorker& a) const {
    if (!a.order.has_assignment()) return "";
    return absl::StrCat("assign ", a.order.assignment().job().name(), " ", a.order.assignment().generation(), " from ",
                        a.order.assignment().checkpoint());
  }
  std::string operator()(const SendToTeacher& a) const {
    return a.order.has_load() ? absl::StrCat("load ", a.order.load().package()) : "";
  }
  std::string operator()(const RecordCheckpoint& a) const {
    return absl::StrCat("admit ", a.job, " ", a.checkpoint.step, " ", a.checkpoint.digest);
  }
  std::string operator()(const RecordInput& a) const { return absl::StrCat("input ", a.key, " ", a.digest); }
  std::string operator()(const DropCheckpoint& a) const { return absl::StrCat(a.rotten ? "strike " : "drop ", a.path); }
  std::string operator()(const DeleteCheckpoint& a) const { return absl::StrCat("delete ", a.path); }
  std::string operator()(const RecordFinishedJob& a) const {
    return absl::StrCat("finished ", a.job, " ", a.checkpoint);
  }
  std::string operator()(const CloseStream& a) const {
    return absl::StrCat("close ", absl::StatusCodeToString(a.status.code()));
  }
  std::string operator()(const WriteReport&) const { return "report"; }
  std::string operator()(const EndRun&) const { return "end"; }
  template <typename Other>
  std::string operator()(const Other&) const {
    return "";
  }
};

std::string PathOf(const std::string& job, int64_t step, int64_t generation = 5) {
  return checkpoint::CheckpointPath("run/checkpoints/" + job, step, generation);
}

PlannedJob Train(const std::string& name) {
  PlannedJob planned;
  planned.job.set_name(name);
  planned.job.set_kind(v1::Job::KIND_TRAIN);
  planned.job.set_steps(kSteps);
  planned.job.set_checkpoints("run/checkpoints/" + name);
  planned.job.set_package("run/models/" + name);
  planned.job.set_keep_checkpoints(2);
  planned.job.mutable_plan()->set_index_digest("index");
  return planned;
}

class RunMachineResumeTest : public testing::Test {
 protected:
  void Start(std::vector<PlannedJob> jobs, Resumption resumed, const std::string& teacher_address = "") {
    RunConfig config;
    config.generation.number = 4;
    config.stages = {"index"};
    for (const PlannedJob& planned : jobs) config.stages.push_back(planned.job.name());
    v1::Teacher teacher;
    teacher.set_name("english");
    if (teacher_address.empty()) {
      teacher.mutable_train();
    } else {
      teacher.set_address(teacher_address);
    }
    config.teachers = {teacher};
    config.resumed = std::move(resumed);
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
  void Join(StreamId stream) {
    Do(StreamOpened{stream});
    v1::WorkerMessage message;
    message.mutable_hello()->set_protocol_version(kProtocolVersion);
    message.mutable_hello()->set_worker_id(absl::StrCat("worker-", stream));
    Do(WorkerSaid{stream, message});
  }
  std::vector<std::string> Prepared(std::vector<RunInput> inputs = {}) {
    return Do(StagesFinished{PreparedJobs{jobs_, {}, "", std::move(inputs)}});
  }
  std::vector<std::string> Described(const std::string& digest) {
    v1::DescribeReply reply;
    reply.set_digest(digest);
    return Do(TeacherDescribed{"english", reply});
  }
  std::vector<std::string> Written(StreamId stream, int64_t generation, int64_t step, const std::string& path) {
    v1::WorkerMessage message;
    auto& written = *message.mutable_checkpointed();
    written.set_generation(generation);
    written.set_step(step);
    written.set_path(path);
    written.set_weights_digest(absl::StrCat("w", step));
    return Do(WorkerSaid{stream, message});
  }
  std::vector<std::string> Written(int64_t step) { return Written(1, 5, step, PathOf("distilled", step)); }
  std::vector<std::string> Done(int64_t generation, int64_t step) {
    v1::WorkerMessage message;
    message.mutable_done()->mutable_progress()->set_generation(generation);
    message.mutable_done()->mutable_progress()->set_step(step);
    message.mutable_done()->set_weights_digest("w");
    return Do(WorkerSaid{1, message});
  }
  v1::RunStatus Status() const { return machine_->Status(now_); }

  Instant now_{std::chrono::hours(1)};
  std::optional<RunMachine> machine_;
  std::vector<PlannedJob> jobs_;
};

TEST_F(RunMachineResumeTest, GoesOnFromTheNewestCheckpointOfTheFirstUnfinishedJob) {
  Resumption resumed;
  resumed.finished = {{"teacher:english", "t"}};
  resumed.checkpoints["distilled"] = {{30, 3, PathOf("distilled", 30), "w30"}, {40, 4, PathOf("distilled", 40), "w40"}};
  v1::RunStatus::Stage stage;
  stage.set_name("teacher:english");
  stage.set_seconds(12.5);
  stage.set_records(640);
  resumed.stages["teacher:english"] = stage;
  stage.set_name("distilled");
  resumed.stages["distilled"] = stage;
  Start({Train("teacher:english"), Train("distilled"), Train("gold")}, resumed);
  Join(1);
  EXPECT_THAT(Prepared(), ElementsAre(absl::StrCat("assign distilled 5 from ", PathOf("distilled", 40))));
  EXPECT_TRUE(Status().stages(1).finished());
  EXPECT_EQ(Status().stages(1).records(), 640);
  EXPECT_DOUBLE_EQ(Status().stages(1).seconds(), 12.5);
  now_ += milliseconds(500);
  EXPECT_DOUBLE_EQ(Status().stages(2).seconds(), 13.0);
  // Every admitted one counts when the oldest is dropped, of whichever process.
  EXPECT_THAT(Written(50), ElementsAre("admit distilled 50 w50", "drop " + PathOf("distilled", 30)));
  EXPECT_THAT(Written(kSteps), ElementsAre("admit distilled 100 w100", "drop " + PathOf("distilled", 40)));
  EXPECT_THAT(Done(5, kSteps), ElementsAre("finished distilled " + PathOf("distilled", 100),
                                           "drop " + PathOf("distilled", 50), "assign gold 6 from "));
}

TEST_F(RunMachineResumeTest, ARunWhoseJobsAreAllFinishedIsReported) {
  Resumption resumed;
  resumed.finished = {{"distilled", "w"}};
  Start({Train("distilled")}, resumed);
  EXPECT_THAT(Prepared(), ElementsAre("report"));
}

TEST_F(RunMachineResumeTest, AFinishedTeacherIsLoadedAtOnce) {
  Resumption resumed;
  resumed.finished = {{"teacher:english", "t"}};
  PlannedJob distilled = Train("distilled");
  distilled.teachers = {"english"};
  Start({Train("teacher:english"), distilled}, resumed);
  v1::TeacherMessage hello;
  hello.mutable_hello()->set_protocol_version(kProtocolVersion);
  hello.mutable_hello()->set_server_id("s");
  hello.mutable_hello()->set_teacher("english");
  hello.mutable_hello()->set_address("host:9");
  Do(StreamOpened{9});
  Do(TeacherSaid{9, hello});
  EXPECT_THAT(Prepared(), ElementsAre("load run/models/teacher:english"));
}

// The last job of those that were finished may be one in the middle: its package was damaged.
TEST_F(RunMachineResumeTest, AJobInTheMiddleIsDoneAgain) {
  Resumption resumed;
  resumed.finished = {{"teacher:english", "t"}, {"gold", "g"}};
  resumed.checkpoints["distilled"] = {{kSteps, 3, PathOf("distilled", kSteps), "w"}};
  Start({Train("teacher:english"), Train("distilled"), Train("gold"), Train("no_teacher")}, resumed);
  Join(1);
  EXPECT_THAT(Prepared(), ElementsAre(absl::StrCat("assign distilled 5 from ", PathOf("distilled", kSteps))));
  EXPECT_THAT(Done(5, kSteps),
              ElementsAre("finished distilled " + PathOf("distilled", kSteps), "assign no_teacher 6 from "));
}

TEST_F(RunMachineResumeTest, ACheckpointThatIsToldOfAgainIsNotAdmittedAgain) {
  Start({Train("distilled")}, {});
  Join(1);
  Prepared();
  for (const int64_t step : {10, 20, 30}) Written(step);
  for (const int64_t step : {10, 30}) EXPECT_THAT(Written(step), IsEmpty()) << step;
}

TEST_F(RunMachineResumeTest, ALaterGenerationsCheckpointOfAStepReplacesTheEarlierOne) {
  Resumption resumed;
  resumed.checkpoints["distilled"] = {{40, 4, PathOf("distilled", 40, 4), "w40"}};
  Start({Train("distilled")}, resumed);
  Join(1);
  Prepared();
  EXPECT_THAT(Written(40), ElementsAre("admit distilled 40 w40", "drop " + PathOf("distilled", 40, 4)));
}

// Rank 0 of each generation writes a checkpoint, and says so after the next one was formed.
TEST_F(RunMachineResumeTest, InterruptedGenerationsLeaveNoCheckpointsBehind) {
  Start({Train("distilled")}, {});
  Join(1);
  Prepared();
  std::set<std::string> folders;
  int64_t generation = 5;
  const auto note = [&](const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      for (const std::string what : {"drop ", "delete "}) {
        if (line.starts_with(what)) folders.erase(line.substr(what.size()));
      }
    }
  };
  for (int i = 0; i < 20; ++i, ++generation) {
    for (const int64_t step : {3 * i + 1, 3 * i + 2}) folders.insert(PathOf("distilled", step, generation));
    note(Written(1, generation, 3 * i + 1, PathOf("distilled", 3 * i + 1, generation)));
    v1::WorkerMessage agreed, left;
    agreed.mutable_agreed()->set_generation(generation);
    Do(WorkerSaid{1, agreed});
    left.mutable_interrupted()->mutable_standing()->set_generation(generation);
    Do(WorkerSaid{1, left});
    note(Written(1, generation, 3 * i + 2, PathOf("distilled", 3 * i + 2, generation)));
  }
  EXPECT_LE(folders.size(), 2u + 1u) << "keep_checkpoints + 1";
  EXPECT_TRUE(folders.contains(PathOf("distilled", 58, 24))) << "the newest that was admitted";
}

TEST_F(RunMachineResumeTest, WhatIsToldOfLateIsDeletedOnlyIfItIsAnUnadmittedCheckpoint) {
  Resumption resumed;
  resumed.finished["gold"] = "g";
  resumed.checkpoints["distilled"] = {{30, 3, PathOf("distilled", 30, 3), "w30"}};
  Start({Train("gold"), Train("distilled")}, resumed);
  Join(1);
  Prepared();
  const auto late = [this](int64_t step, const std::string& path, int64_t generation = 3) {
    return Written(1, generation, step, path);
  };
  EXPECT_THAT(late(20, PathOf("distilled", 20, 3)), ElementsAre("delete " + PathOf("distilled", 20, 3)));
  EXPECT_THAT(late(30, PathOf("distilled", 30, 3)), IsEmpty()) << "admitted";
  EXPECT_THAT(late(20, PathOf("gold", 20, 3)), IsEmpty()) << "of a job finished by another process";
  EXPECT_THAT(late(20, PathOf("distilled", 21, 3)), IsEmpty()) << "another step's";
  EXPECT_THAT(late(20, "/home/somebody"), IsEmpty());
  EXPECT_THAT(late(20, PathOf("distilled", 20, 9), 9), IsEmpty()) << "of no generation yet";
}

class RottenCheckpoint : public RunMachineResumeTest {
 protected:
  void Start(int admitted, int workers) {
    Resumption resumed;
    for (int i = 1; i <= admitted; ++i) {
      resumed.checkpoints["distilled"].push_back({10 * i, i, PathOf("distilled", 10 * i, i), "w"});
    }
    PlannedJob planned = Train("distilled");
    planned.workers = workers;
    RunMachineResumeTest::Start({planned}, resumed);
    for (StreamId stream = 1; stream <= workers; ++stream) Join(stream);
    Prepared();
  }
  std::vector<std::string> Fails(StreamId stream, int64_t generation, const std::string& path,
                                 absl::StatusCode code = absl::StatusCode::kDataLoss) {
    v1::WorkerMessage message;
    auto& failed = *message.mutable_failed();
    failed.set_generation(generation);
    failed.set_code(static_cast<int>(code));
    failed.set_message(path + ": " + path + "/model.safetensors: its SHA-256 is not the one in its manifest");
    return Do(WorkerSaid{stream, message});
  }
};

TEST_F(RottenCheckpoint, IsPassedOverByAllWhoReadIt) {
  Start(3, 2);
  const std::string newest = PathOf("distilled", 30, 3), before = PathOf("distilled", 20, 2);
  EXPECT_THAT(Fails(1, 5, newest), ElementsAre("strike " + newest));
  EXPECT_THAT(Fails(2, 5, newest),
              ElementsAre("assign distilled 6 from " + before, "assign distilled 6 from " + before));
  Fails(1, 6, before);
  EXPECT_THAT(Fails(2, 6, before), testing::Contains("assign distilled 7 from " + PathOf("distilled", 10, 1)));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

TEST_F(RottenCheckpoint, FailsTheRunWhenItIsTheOnlyOne) {
  Start(1, 1);
  Fails(1, 5, PathOf("distilled", 10, 1));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("its SHA-256"));
}

TEST_F(RottenCheckpoint, IsNotOneThatIsOnlyMissing) {
  Start(2, 1);
  Fails(1, 5, PathOf("distilled", 20, 2), absl::StatusCode::kNotFound);
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED) << "the disk may not be mounted";
}

TEST_F(RottenCheckpoint, IsOneThatWasAssigned) {
  Start(2, 1);
  Fails(1, 5, PathOf("distilled", 10, 1));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
}

TEST_F(RunMachineResumeTest, AnotherCorpusFailsTheRunBeforeAnythingIsRecorded) {
  Resumption resumed;
  resumed.segments["distilled"].set_index_digest("another");
  Start({Train("distilled")}, resumed);
  Join(1);
  EXPECT_THAT(Prepared(), IsEmpty());
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("the corpus has changed"));
}

TEST_F(RunMachineResumeTest, AnInputIsRecordedAtItsFirstUseAndMayNotChangeLater) {
  const RunInput package{"teachers.0.package", "p", {"distilled"}, "d"};
  Start({Train("distilled")}, {});
  Join(1);
  EXPECT_THAT(Prepared({package}), ElementsAre("input teachers.0.package d", "assign distilled 5 from "));

  Resumption resumed;
  resumed.inputs["teachers.0.package"] = "d";
  Start({Train("distilled")}, resumed);
  Join(1);
  EXPECT_THAT(Prepared({package}), ElementsAre("assign distilled 5 from "));

  resumed.inputs["teachers.0.package"] = "another";
  Start({Train("distilled")}, resumed);
  Join(1);
  EXPECT_THAT(Prepared({package}), IsEmpty());
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_FAILED);
  EXPECT_THAT(Status().reason(), HasSubstr("teachers.0.package: p has changed"));
}

TEST_F(RunMachineResumeTest, AnotherTeacherAtTheAddressIsRefusedWhileItsLabelsAreNeeded) {
  Resumption resumed;
  resumed.inputs["teachers.0.address"] = "d";
  PlannedJob distilled = Train("distilled");
  distilled.teachers = {"english"};
  for (const std::string digest : {"d", "another"}) {
    Start({distilled}, resumed, "far:7");
    Join(1);
    Prepared();
    const bool same = digest == "d";
    EXPECT_EQ(Described(digest).size(), same ? 1u : 0u) << digest;
    EXPECT_EQ(Status().state(), same ? v1::RunStatus::STATE_RUNNING : v1::RunStatus::STATE_FAILED) << digest;
  }
  EXPECT_THAT(Status().reason(), HasSubstr("teachers.0.address: far:7 has changed"));

  resumed.finished["distilled"] = "w";
  Start({distilled, Train("gold")}, resumed, "far:7");
  Prepared();
  Described("another");
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

TEST_F(RunMachineResumeTest, ACheckpointIsAdmittedAfterTheRunWasStopped) {
  Start({Train("distilled")}, {});
  Join(1);
  Prepared();
  v1::WorkerMessage at_work;
  at_work.mutable_progress()->set_generation(5);
  at_work.mutable_progress()->set_step(16);
  Do(WorkerSaid{1, at_work});
  Do(StopAsked{"Ctrl-C"});
  // It takes longer than other processes have to leave.
  for (int second = 0; second < 30; ++second) {
    now_ += milliseconds(1000);
    v1::WorkerMessage beat;
    beat.mutable_heartbeat();
    EXPECT_THAT(Do(WorkerSaid{1, beat}), IsEmpty());
  }
  EXPECT_THAT(Written(17), ElementsAre("admit distilled 17 w17"));
  EXPECT_THAT(Do(StreamClosed{1}), ElementsAre("end"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_STOPPED);
}

TEST_F(RunMachineResumeTest, EarlyStoppingMayEndAJobBeforeItsLastStep) {
  PlannedJob planned = Train("distilled");
  planned.job.mutable_early_stopping()->set_every(10);
  Start({planned, Train("gold")}, {});
  Join(1);
  Prepared();
  Written(70);
  EXPECT_THAT(Done(5, 70), ElementsAre("finished distilled " + PathOf("distilled", 70), "assign gold 6 from "));
  EXPECT_EQ(Status().stages(1).done(), 70);
}

struct RefusedCase {
  std::string name;
  StreamId stream;
  int64_t generation;
  int64_t step;
  std::string path;
  std::vector<std::string> actions;
};
class RefusedCheckpoint : public RunMachineResumeTest, public testing::WithParamInterface<RefusedCase> {};
TEST_P(RefusedCheckpoint, IsNotAdmitted) {
  PlannedJob planned = Train("distilled");
  planned.workers = 2;
  Start({planned}, {});
  Join(1);
  Join(2);
  Prepared();
  EXPECT_EQ(Written(GetParam().stream, GetParam().generation, GetParam().step, GetParam().path), GetParam().actions);
}
INSTANTIATE_TEST_SUITE_P(
    Cases, RefusedCheckpoint,
    testing::Values(RefusedCase{"OtherGeneration", 1, 4, 10, PathOf("distilled", 10), {}},
                    RefusedCase{"OtherRank", 2, 5, 10, PathOf("distilled", 10), {}},
                    RefusedCase{"OtherFolder", 1, 5, 10, "/home/somebody", {"close INVALID_ARGUMENT"}},
                    RefusedCase{"OtherStep", 1, 5, 10, PathOf("distilled", 11), {"close INVALID_ARGUMENT"}},
                    RefusedCase{"AfterTheLastStep", 1, 5, 101, PathOf("distilled", 101), {"close INVALID_ARGUMENT"}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace polystill::coordinator
