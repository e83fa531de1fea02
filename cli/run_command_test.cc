#include "cli/run_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "cli/check_command.h"
#include "cli/exit_codes.h"
#include "runtime/files.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class RunCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "run_command_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_ + "/corpus");
    options_.run_file = folder_ + "/run.yaml";
    options_.programs = folder_ + "/bin";
    Write("/run.yaml", absl::StrCat("version: 1\nname: x\ncorpus: {path: ", folder_,
                                    "/corpus, labels: [a, b]}\ntokenizer: {}\nstudent: {losses: [{kind: task}]}\n"
                                    "output: ",
                                    folder_, "/out\n"));
  }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + name, text).ok());
  }
  // A program that is a shell script; $ADDRESS is the file that the coordinator is to write.
  void WriteProgram(const std::string& name, const std::string& script) {
    Write("/bin/" + name, absl::StrCat("#!/bin/sh\nADDRESS=\nwhile [ $# -gt 0 ]; do [ \"$1\" = --address-file ] && "
                                       "ADDRESS=$2; shift; done\n",
                                       script, "\n"));
    ASSERT_EQ(::chmod((folder_ + "/bin/" + name).c_str(), 0755), 0);
  }
  int Run() { return cli::Run(options_, out_, err_); }

  std::string folder_;
  RunOptions options_;
  std::ostringstream out_, err_;
};

TEST_F(RunCommandTest, MistakesInTheRunFileAreUsage) {
  options_.settings = {"student.epoch=2"};
  EXPECT_EQ(Run(), kExitUsage);
  EXPECT_EQ(err_.str(), "--set student.epoch=2: unknown key; did you mean epochs?\n");
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
}

TEST_F(RunCommandTest, AnEarlierRunIsNotTouched) {
  Write("/out/coordinator.sqlite", "x");
  EXPECT_EQ(Run(), kExitUsage);
  EXPECT_EQ(err_.str(),
            folder_ +
                "/out: holds an earlier run; choose another output, go on with that run with --resume, or delete it "
                "with --overwrite\n");
}

TEST_F(RunCommandTest, ResumeNeedsARun) {
  options_.resume = true;
  EXPECT_EQ(Run(), kExitUsage);
  EXPECT_EQ(err_.str(), folder_ + "/out: holds no run to resume; leave --resume out to start one\n");
  EXPECT_FALSE(fs::exists(folder_ + "/out"));
}

TEST_F(RunCommandTest, ResumeRefusesAnotherRunFileByItsKeys) {
  Write("/out/coordinator.sqlite", "x");
  Write("/out/run.yaml", ReadFile(options_.run_file).value());
  options_.resume = true;
  options_.settings = {"student.epochs=7", "seed=3", "student.workers=4"};
  EXPECT_EQ(Run(), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("which began with another seed, student.epochs; write what its run.yaml says"));
}

TEST_F(RunCommandTest, ResumeOfARunThatIsDoneShowsItsTable) {
  Write("/out/coordinator.sqlite", "x");
  Write("/out/run.yaml", ReadFile(options_.run_file).value());
  Write("/out/report.json", R"({"metrics": ["accuracy"], "bootstrap": null, "differences": {},
                                "languages": {"de": {"records": 3, "distilled": {"accuracy": 0.5, "macro_f1": 0.25}}},
                                "mean": {"records": 3, "distilled": {"accuracy": 0.5, "macro_f1": 0.25}}})");
  options_.resume = true;
  EXPECT_EQ(Run(), kExitFine) << err_.str();
  EXPECT_THAT(out_.str(), StartsWith("run x is done already\n"));
  EXPECT_THAT(out_.str(), EndsWith(absl::StrCat("\n", folder_, "/out/report.json\n")));
  EXPECT_FALSE(fs::exists(folder_ + "/out/logs"));
}

TEST_F(RunCommandTest, AStoppedRunSaysHowToGoOn) {
  WriteProgram("polystill-coordinator", "trap 'exit 130' TERM; while :; do sleep 0.01; done");
  options_.settings = {"student.epochs=2"};
  sigset_t interrupt, before;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, &before);
  options_.overwrite = true;
  Write("/out/coordinator.sqlite", "x");
  ::kill(::getpid(), SIGINT);
  EXPECT_EQ(Run(), kExitInterrupted);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_THAT(err_.str(), EndsWith(absl::StrCat("\ngo on with: polystill run ", options_.run_file,
                                                " --set 'student.epochs=2' --resume\n")));
}

TEST_F(RunCommandTest, ACoordinatorThatDoesNotStartIsTold) {
  WriteProgram("polystill-coordinator", "echo 'port in use' >&2; exit 1");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_EQ(err_.str(),
            absl::StrCat("polystill: the run failed: coordinator did not start\n"
                         "coordinator ended with status 1; end of ",
                         folder_, "/out/logs/coordinator.log:\n  | port in use\nlogs: ", folder_, "/out/logs\n"));
}

TEST_F(RunCommandTest, AMissingProgramIsTold) {
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("bin/polystill-coordinator: cannot start: No such file"));
}

TEST_F(RunCommandTest, ACoordinatorThatDiesLaterEndsTheOthers) {
  WriteProgram("polystill-coordinator", "[ $ADDRESS ] && echo 127.0.0.1:1 > $ADDRESS; echo out of memory; kill -9 $$");
  WriteProgram("polystill-student", "trap 'echo ended; exit 0' TERM; while :; do sleep 0.01; done");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), StartsWith("polystill: the run failed: a process of it ended\n"
                                     "coordinator was killed by signal 9 (Killed); end of "));
  EXPECT_THAT(err_.str(), HasSubstr("  | out of memory\n"));
  EXPECT_EQ(ReadFile(folder_ + "/out/logs/student-0.log").value_or(""), "ended\n");
}

TEST_F(RunCommandTest, ThoseThatAreKilledAreStartedAgain) {
  // Each is killed once; the coordinator then waits for the student, and must have been told where to listen.
  WriteProgram("polystill-coordinator",
               "if [ $ADDRESS ]; then echo 127.0.0.1:1 > $ADDRESS; kill -9 $$; fi\n"
               "until [ -e $0.again ]; do sleep 0.01; done; exit 1");
  WriteProgram("polystill-student",
               "[ -e $0.begun ] && touch ${0%student}coordinator.again && exec sleep 60; touch $0.begun; kill -9 $$");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(out_.str(), HasSubstr("coordinator was killed by signal 9 (Killed); it is started again\n"));
  EXPECT_THAT(out_.str(), HasSubstr("student-0 was killed by signal 9 (Killed); it is started again\n"));
  EXPECT_THAT(err_.str(), HasSubstr("\ncoordinator ended with status 1"));
}

TEST_F(RunCommandTest, TheReasonOfACoordinatorThatLeftAtOnceIsTold) {
  Write("/status.json", R"({"state": "STATE_FAILED", "reason": "de.jsonl: row 3: no label", "run": "x"})");
  WriteProgram("polystill-coordinator",
               absl::StrCat("cp ", folder_, "/status.json ", folder_, "/out/; echo 127.0.0.1:1 > $ADDRESS; exit 1"));
  WriteProgram("polystill-student", "exit 0");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), StartsWith("polystill: the run failed: de.jsonl: row 3: no label\n"));
  // That of an earlier run says nothing about this one.
  WriteProgram("polystill-coordinator", "[ $ADDRESS ] && echo 127.0.0.1:1 > $ADDRESS; kill -9 $$");
  options_.overwrite = true;
  err_.str("");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), StartsWith("polystill: the run failed: a process of it ended\n"));
}

TEST_F(RunCommandTest, StudentsThatFollowedTheRunAreNotItsCause) {
  // The student has ended for sure before the coordinator does.
  WriteProgram("polystill-coordinator",
               "echo 127.0.0.1:1 > $ADDRESS; until [ -e $0.told ]; do sleep 0.01; done; exit 1");
  WriteProgram("polystill-student", "touch ${0%student}coordinator.told; exit 75");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("\ncoordinator ended with status 1"));
  EXPECT_THAT(err_.str(), Not(HasSubstr("student-0")));
}

TEST_F(RunCommandTest, ResumeOrStartDoesWhatTheFolderAllows) {
  WriteProgram("polystill-coordinator", "exit 1");
  options_.resume_or_start = true;
  EXPECT_EQ(Run(), kExitFailed);  // started
  EXPECT_THAT(err_.str(), HasSubstr("coordinator ended with status 1"));
  Write("/out/coordinator.sqlite", "x");
  Write("/out/run.yaml", ReadFile(options_.run_file).value());
  options_.settings = {"seed=3"};
  EXPECT_EQ(Run(), kExitUsage);  // resumed
  EXPECT_THAT(err_.str(), HasSubstr("which began with another seed"));
}

TEST_F(RunCommandTest, ASignalBeforeTheStartStopsIt) {
  WriteProgram("polystill-coordinator", "trap 'exit 130' TERM; while :; do sleep 0.01; done");
  // Stays pending until the run looks for it.
  sigset_t interrupt, before;
  sigemptyset(&interrupt);
  sigaddset(&interrupt, SIGINT);
  pthread_sigmask(SIG_BLOCK, &interrupt, &before);
  ::kill(::getpid(), SIGINT);
  EXPECT_EQ(Run(), kExitInterrupted);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(err_.str(), absl::StrCat("polystill: stopped; what is finished lies in ", folder_, "/out\n"));
}

TEST_F(RunCommandTest, TheTableAndThePathOfTheReportComeLast) {
  Write(
      "/report.json",
      R"({"metrics": ["accuracy", "macro_f1"], "bootstrap": null, "differences": {}, "languages": {"de": {"records": 3, "distilled": {"accuracy": 0.5, "macro_f1": 0.25}}},
                            "mean": {"records": 3, "distilled": {"accuracy": 0.5, "macro_f1": 0.25}}})");
  WriteProgram("polystill-coordinator",
               absl::StrCat("cp ", folder_, "/report.json ", folder_, "/out/; echo 127.0.0.1:1 > $ADDRESS; exit 0"));
  WriteProgram("polystill-student", "exit 0");
  EXPECT_EQ(Run(), kExitFine) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("de              3      50.0      25.0\n"));
  // The programs have no Python beside them here.
  EXPECT_THAT(out_.str(), HasSubstr("\nno report.html: Python's module polystill_report is neither in"));
  EXPECT_THAT(out_.str(),
              EndsWith(absl::StrCat("; then: polystill report ", folder_, "/out\n", folder_, "/out/report.json\n")));
  // A Python that does it, and one that says why not.
  fs::create_directories(folder_ + "/python/polystill_report");
  ASSERT_EQ(::setenv("POLYSTILL_PYTHON", absl::StrCat(folder_, "/bin/python").c_str(), 1), 0);
  options_.overwrite = true;
  WriteProgram("python", "exit 0");
  EXPECT_EQ(Run(), kExitFine) << err_.str();
  EXPECT_THAT(out_.str(), EndsWith(absl::StrCat("\n", folder_, "/out/report.html\n", folder_, "/out/report.json\n")));
  WriteProgram("python", "echo 'no matplotlib: install it' >&2; exit 1");
  EXPECT_EQ(Run(), kExitFine) << err_.str();
  EXPECT_THAT(out_.str(), EndsWith(absl::StrCat("\nno report.html: no matplotlib: install it; then: polystill report ",
                                                folder_, "/out\n", folder_, "/out/report.json\n")));
  ::unsetenv("POLYSTILL_PYTHON");
}

TEST_F(RunCommandTest, ATornReportIsAFailure) {
  WriteProgram("polystill-coordinator",
               absl::StrCat("echo '{' > ", folder_, "/out/report.json; echo 127.0.0.1:1 > $ADDRESS; exit 0"));
  WriteProgram("polystill-student", "exit 0");
  EXPECT_EQ(Run(), kExitFailed);
  EXPECT_THAT(err_.str(), HasSubstr("/out/report.json: not a report"));
}

TEST_F(RunCommandTest, CheckSaysFineOrWhatIsWrong) {
  EXPECT_EQ(CheckRunFile(options_.run_file, {}, out_, err_), kExitFine);
  EXPECT_THAT(out_.str(), StartsWith(options_.run_file + ": fine\n  index "));
  EXPECT_EQ(err_.str(), "");
  EXPECT_EQ(CheckRunFile(options_.run_file, {"student.workers=0"}, out_, err_), kExitUsage);
  EXPECT_EQ(err_.str(), "--set student.workers=0: must be at least 1, got 0\n");
  EXPECT_EQ(CheckRunFile(folder_ + "/none.yaml", {}, out_, err_), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("/none.yaml: cannot open: No such file"));
}

TEST_F(RunCommandTest, KeysAreAllThere) {
  EXPECT_EQ(PrintKeys(out_), kExitFine);
  EXPECT_THAT(out_.str(), HasSubstr("\nstudent.languages.mixture.tau: number = 1.0"));
}

}  // namespace
}  // namespace polystill::cli
