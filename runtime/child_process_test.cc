#include "runtime/child_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>

namespace polystill {
namespace {

// What can be read until every writer has closed.
std::string ReadAll(int file) {
  std::string all;
  std::array<char, 256> part;
  for (ssize_t got = 0; (got = ::read(file, part.data(), part.size())) > 0;) all.append(part.data(), got);
  return all;
}

TEST(ChildProcess, WritesToTheCallersPipe) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  auto child = ChildProcess::Start(
      {.name = "a", .argv = {"/bin/sh", "-c", "echo out; echo err >&2; exit 3"}, .log = "", .output = pipe[1]});
  ASSERT_TRUE(child.ok()) << child.status();
  ::close(pipe[1]);
  EXPECT_EQ(ReadAll(pipe[0]), "out\nerr\n");
  ::close(pipe[0]);
  child->KillGroup();  // which waits for its end
  EXPECT_TRUE(child->Poll().has_value());
}

TEST(ChildProcess, IsKilledWithWhatItStarted) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  auto child = ChildProcess::Start(
      {.name = "a", .argv = {"/bin/sh", "-c", "sleep 1000 & echo up; wait"}, .log = "", .output = pipe[1]});
  ASSERT_TRUE(child.ok()) << child.status();
  ::close(pipe[1]);
  std::array<char, 3> up;
  ASSERT_EQ(::read(pipe[0], up.data(), up.size()), 3);
  EXPECT_FALSE(child->Poll().has_value());
  child->KillGroup();
  EXPECT_EQ(child->Poll(), "was killed by signal 9 (Killed)");
  EXPECT_EQ(ReadAll(pipe[0]), "");  // ends once the grandchild is gone too
  ::close(pipe[0]);
  child->KillGroup();  // nothing is left to do
}

TEST(ChildProcess, AMissingProgramIsNamed) {
  const auto child = ChildProcess::Start({.name = "a", .argv = {"/no/such"}, .log = "", .output = STDERR_FILENO});
  EXPECT_EQ(child.status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace polystill
