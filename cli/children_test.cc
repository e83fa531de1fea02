#include "cli/children.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "cli/log_tail.h"
#include "runtime/files.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using testing::HasSubstr;

// Long enough for a loaded machine; nothing waits this long unless it fails.
constexpr milliseconds kPatience{30'000};

Launch Shell(const std::string& name, const std::string& script) { return {name, {"/bin/sh", "-c", script}}; }

class ChildrenTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "children_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }
  std::string Log(const std::string& name) { return ReadFile(folder_ + "/" + name + ".log").value_or("no log"); }
  // Until the log of a child holds `text`: it has come that far.
  void AwaitLog(const std::string& name, const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (Log(name).find(text) == std::string::npos) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << Log(name);
      std::this_thread::yield();
    }
  }
  std::string folder_;
  Signals signals_;
};

TEST_F(ChildrenTest, OutputOfBothKindsGoesToTheLog) {
  Children children(folder_, &signals_);
  ASSERT_TRUE(children.Start(Shell("a", "echo out; echo err >&2; cat"), false).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  EXPECT_EQ(Log("a"), "out\nerr\n");
  ASSERT_EQ(children.ended().size(), 1u);
  EXPECT_TRUE(children.ended()[0]->succeeded());
}

TEST_F(ChildrenTest, OneThatHasEndedIsStartedAgain) {
  Children children(folder_, &signals_);
  ASSERT_TRUE(children.Start(Shell("a", "echo one; kill -9 $$"), false).ok());
  ASSERT_TRUE(children.Start(Shell("b", "exit 0"), false).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  ChildProcess* const killed = children.ended()[children.ended()[0]->name() == "a" ? 0 : 1];
  ASSERT_TRUE(children.Restart(killed, Shell("a", "echo two; exit 3")).ok());
  EXPECT_FALSE(children.HasEnded("a"));
  EXPECT_FALSE(children.all_ended());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  EXPECT_EQ(children.ended().size(), 2u);
  EXPECT_EQ(killed->exit_status(), 3);
  EXPECT_EQ(Log("a"), "one\ntwo\n");
}

TEST_F(ChildrenTest, TellsHowEachEnded) {
  Children children(folder_, &signals_);
  ASSERT_TRUE(children.Start(Shell("first", "echo one; echo two; exit 3"), false).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  ASSERT_TRUE(children.Start(Shell("second", "kill -9 $$"), false).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  ASSERT_EQ(children.ended().size(), 2u);
  EXPECT_EQ(Obituary(children.ended()[0]),
            "first ended with status 3; end of " + folder_ + "/first.log:\n  | one\n  | two\n");
  EXPECT_EQ(Obituary(children.ended()[1]), "second was killed by signal 9 (Killed); its log is empty\n");
  EXPECT_TRUE(children.HasEnded("second"));
  EXPECT_FALSE(children.HasEnded("third"));
}

TEST_F(ChildrenTest, AppendedLogsShowOnlyTheirOwnEnd) {
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/a.log", "before\n").ok());
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/b.log", "before\n").ok());
  Children children(folder_, &signals_);
  ASSERT_TRUE(children.Start(Shell("a", "echo now; exit 1"), true).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  ASSERT_TRUE(children.Start(Shell("b", "echo now"), false).ok());
  ASSERT_TRUE(children.WaitForAll(kPatience));
  EXPECT_EQ(Log("a"), "before\nnow\n");
  EXPECT_EQ(LogTail(folder_ + "/a.log", 7), "  | now\n");
  EXPECT_EQ(Log("b"), "now\n");
}

TEST_F(ChildrenTest, AMissingProgramIsNamed) {
  Children children(folder_, &signals_);
  const absl::Status status = children.Start({"a", {"/none/polystill-student"}}, false);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/none/polystill-student"));
  EXPECT_TRUE(children.all_ended());
}

TEST_F(ChildrenTest, EndsThePoliteByTermAndTheStubbornByKill) {
  Children children(folder_, &signals_);
  ASSERT_TRUE(
      children.Start(Shell("polite", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"), false)
          .ok());
  ASSERT_TRUE(children.Start(Shell("stubborn", "trap '' TERM; echo up; while :; do sleep 0.01; done"), false).ok());
  AwaitLog("polite", "up");
  AwaitLog("stubborn", "up");
  EXPECT_FALSE(children.WaitForAll(milliseconds(0)));
  children.EndAll(milliseconds(500));
  ASSERT_TRUE(children.WaitForAll(kPatience));
  EXPECT_EQ(children.ended()[0]->Poll(), "ended with status 0");
  EXPECT_EQ(children.ended()[1]->Poll(), "was killed by signal 9 (Killed)");
  EXPECT_THAT(Log("polite"), HasSubstr("bye"));
}

TEST_F(ChildrenTest, ASignalCutsTheWaitShort) {
  Children children(folder_, &signals_);
  ASSERT_TRUE(children.Start(Shell("a", "trap 'echo asked' TERM; echo up; while :; do sleep 0.01; done"), false).ok());
  AwaitLog("a", "up");
  ::kill(::getpid(), SIGINT);
  EXPECT_FALSE(children.WaitForAll(kPatience));
  // Whoever is in a hurry is not asked to be patient once more.
  children.EndAll(kPatience);
  ASSERT_TRUE(children.WaitFor("a", kPatience));
  EXPECT_EQ(children.ended()[0]->Poll(), "was killed by signal 9 (Killed)");
  EXPECT_EQ(Log("a"), "up\n");
}

TEST_F(ChildrenTest, NoneOutlivesTheObject) {
  pid_t pid = 0;
  {
    Children children(folder_, &signals_);
    ASSERT_TRUE(children.Start(Shell("a", "trap '' TERM INT; echo $$; while :; do sleep 0.01; done"), false).ok());
    AwaitLog("a", "\n");
    pid = static_cast<pid_t>(std::stol(Log("a")));
    EXPECT_EQ(::kill(pid, 0), 0);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

// A parent of its own starts a child and is killed: the child must go with it.
TEST_F(ChildrenTest, DieWithTheParent) {
  const pid_t parent = ::fork();
  if (parent == 0) {
    Children children(folder_, &signals_);
    if (!children.Start(Shell("a", "echo $$; while :; do sleep 0.01; done"), false).ok()) ::_exit(1);
    while (true) ::pause();
  }
  AwaitLog("a", "\n");
  const pid_t child = static_cast<pid_t>(std::stol(Log("a")));
  ::kill(parent, SIGKILL);
  ::waitpid(parent, nullptr, 0);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  // Gone, or a zombie that whoever adopted it has yet to reap.
  const auto alive = [&] {
    const auto status = ReadFile("/proc/" + std::to_string(child) + "/stat");
    return status.ok() && status->find(" Z ") == std::string::npos && ::kill(child, 0) == 0 && !status->empty();
  };
  while (alive()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
    std::this_thread::yield();
  }
}

TEST_F(ChildrenTest, LogTailIsBounded) {
  std::string text;
  for (int i = 0; i < 10000; ++i) text += std::to_string(i) + "\n";
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/a.log", text).ok());
  EXPECT_EQ(LogTail(folder_ + "/a.log", 0, 2), "  | 9998\n  | 9999\n");
  EXPECT_EQ(LogTail(folder_ + "/a.log", static_cast<int64_t>(text.size())), "");
  EXPECT_EQ(LogTail(folder_ + "/none.log", 0), "");
}

}  // namespace
}  // namespace polystill::cli
