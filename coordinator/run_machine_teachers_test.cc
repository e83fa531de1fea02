#include "absl/strings/match.h"
#include "coordinator/run_machine_fixture.h"

namespace polystill::coordinator {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

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

TEST_F(RunMachineTest, TheLossOfEveryServerOfATeacherIsAPause) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(2)});
  Prepared();
  for (const StreamId stream : {8, 9}) {
    TeacherJoins(stream);
    TeacherReady(stream);
  }
  WorkerJoins(1);
  const auto beats = [this](milliseconds time) {
    std::vector<std::string> lines;
    for (; time > milliseconds(0); time -= milliseconds(1000)) {
      WorkerBeats(1);
      for (std::string& line : After(milliseconds(1000))) lines.push_back(std::move(line));
    }
    return lines;
  };
  // Anybody's first seconds are for those to come back that knew an earlier coordinator.
  TeacherBeats(8);
  EXPECT_THAT(Do(StreamClosed{8}), IsEmpty());
  Do(StreamClosed{9});
  EXPECT_THAT(beats(RunMachine::kComeBackWithin), ElementsAre("teachers 1 "));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
  EXPECT_EQ(Status().stages(1).waiting_for(), "teacher english");
  TeacherJoins(10);
  EXPECT_THAT(TeacherReady(10), ElementsAre("teachers 1 host:10=abc"));
  EXPECT_EQ(Status().stages(1).waiting_for(), "");
  EXPECT_THAT(Do(StreamClosed{10}), ElementsAre("teachers 1 "));
}

TEST_F(RunMachineTest, OfManyReplicasAWorkerIsToldOfSomeAndOfTheirChangesAlone) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(20)});
  Prepared();
  for (StreamId stream = 101; stream <= 120; ++stream) {
    TeacherJoins(stream);
    TeacherReady(stream);
  }
  const std::string assigned = WorkerJoins(1).back();
  std::vector<StreamId> told, others;
  for (StreamId stream = 101; stream <= 120; ++stream) {
    (absl::StrContains(assigned, absl::StrCat("host:", stream)) ? told : others).push_back(stream);
  }
  ASSERT_EQ(told.size(), ReplicaChoice::kMost);
  now_ += RunMachine::kComeBackWithin;
  EXPECT_THAT(Do(StreamClosed{others[0]}), IsEmpty());
  const std::vector<std::string> lines = Do(StreamClosed{told[0]});
  ASSERT_EQ(lines.size(), 1);
  EXPECT_THAT(lines[0], testing::StartsWith("teachers 1 host:"));
  EXPECT_THAT(lines[0], testing::Not(HasSubstr(absl::StrCat("host:", told[0]))));
}

TEST_F(RunMachineTest, AWorkerMayTellWhichTeacherItWaitsFor) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  Prepared();
  TeacherJoins(9);
  TeacherReady(9);
  WorkerJoins(1);
  v1::WorkerMessage message;
  message.mutable_progress()->set_generation(1);
  message.mutable_progress()->add_missing_teachers("english");
  Do(WorkerSaid{1, message});
  EXPECT_EQ(Status().stages(1).waiting_for(), "teacher english");
}

TEST_F(RunMachineTest, AServerThatComesBackIsTakenAsItServes) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(2)});
  Prepared();
  WorkerJoins(1);
  EXPECT_THAT(TeacherJoins(8, "english", "", "abc"), ElementsAre("welcome 8"));
  EXPECT_THAT(TeacherJoins(9, "english", "", "another"), ElementsAre("welcome 9", "close 9 FAILED_PRECONDITION"));
  EXPECT_THAT(TeacherJoins(10, "english", "", "abc"),
              ElementsAre("welcome 10", "record generation 1",
                          "assign 1 distilled 1 rank 0/1 teachers host:8=abc,host:10=abc"));
}

TEST_F(RunMachineTest, AServerOfATeacherThatIsTrainedAnewLoadsIt) {
  Start({Train("teacher:english", 1), Train("distilled", 1, {"english"})}, {TrainedTeacher()});
  Prepared();
  WorkerJoins(1);
  EXPECT_THAT(TeacherJoins(9, "english", "", "of an earlier training"), ElementsAre("welcome 9"));
  EXPECT_THAT(WorkerDone(1, 1, "w"), testing::Contains("load 9 run/models/teacher:english"));
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

TEST_F(RunMachineTest, HostileTeachersAreRefused) {
  Start({Train("distilled", 1, {"english"})}, {PackagedTeacher(1)});
  TeacherJoins(1);
  EXPECT_THAT(TeacherJoins(2, "klingon"), ElementsAre("close 2 NOT_FOUND"));
  EXPECT_THAT(TeacherJoins(3, "english", "server-1"), ElementsAre("close 3 ALREADY_EXISTS"));
  EXPECT_THAT(TeacherReady(1, ""), ElementsAre("close 1 INVALID_ARGUMENT"));
  EXPECT_EQ(Status().state(), v1::RunStatus::STATE_RUNNING);
}

}  // namespace
}  // namespace polystill::coordinator
