#include "runtime/rpc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "absl/synchronization/mutex.h"
#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/address.h"

namespace polystill {
namespace {

using testing::HasSubstr;

TEST(Address, TakesHostsApart) {
  EXPECT_EQ(HostOf("gpu1:7000"), "gpu1");
  EXPECT_EQ(HostOf("[::1]:7000"), "[::1]");
  EXPECT_EQ(WithoutBrackets("[::1]"), "::1");
  EXPECT_EQ(WithoutBrackets("gpu1"), "gpu1");
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "[::1]", "::1"})
    EXPECT_TRUE(IsLoopback(host)) << host;
  for (const char* host : {"gpu1", "0.0.0.0", "[::]", "12.7.0.1", ""}) EXPECT_FALSE(IsLoopback(host)) << host;
  for (const char* host : {"0.0.0.0", "[::]", "::", ""}) EXPECT_TRUE(IsWildcard(host)) << host;
  for (const char* host : {"127.0.0.1", "[::1]", "gpu1"}) EXPECT_FALSE(IsWildcard(host)) << host;
}

TEST(Address, NamesAreLookedUp) {
  for (const char* host : {"gpu1", "labels.example.org", "labels.example.org.", "my_labels", "localhost"})
    EXPECT_TRUE(IsHostName(host)) << host;
  for (const char* host : {"", "10.7.0.1", "[::1]", "::1", "[fe80::1%eth0]", "dns:///labels", "ipv4:10.7.0.1"})
    EXPECT_FALSE(IsHostName(host)) << host;
}

TEST(Listen, NeedsAHostThatOthersCanReach) {
  for (const char* listen : {"0.0.0.0:0", "[::]:0", ":0"}) {
    const auto refused = Listen(listen, {}, /*insecure=*/true);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << listen;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("--advertise"));
  }
  EXPECT_EQ(Listen("127.0.0.1:0", {}, false, "0.0.0.0").status().code(), absl::StatusCode::kInvalidArgument);
  v1::TeacherService::CallbackService service;
  const auto listening = Listen("0.0.0.0:0", {&service}, /*insecure=*/true, "gpu1");
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_EQ(HostOf(listening->address), "gpu1");
  listening->server->Shutdown();
}

TEST(Connect, GoesPastAProxy) {
  for (const char* name : {"http_proxy", "grpc_proxy", "https_proxy"}) ::setenv(name, "http://127.0.0.1:1", 1);
  v1::TeacherService::CallbackService service;
  const auto listening = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(listening.ok()) << listening.status();
  EXPECT_TRUE(
      Connect(listening->address)->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(10)));
  listening->server->Shutdown();
  for (const char* name : {"http_proxy", "grpc_proxy", "https_proxy"}) ::unsetenv(name);
}

// Aborts where Abseil keeps a graph of the order in which mutexes, which are gRPC's too, were locked.
void LockInBothOrders() {
  absl::Mutex one, other;
  { const absl::MutexLock outer(&one), inner(&other); }
  const absl::MutexLock outer(&other), inner(&one);
}

// Each in a process of its own, in which nothing else has made a channel or a server.
TEST(LocksOfGrpcDeathTest, KeepNoGraph) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT((Connect("127.0.0.1:1"), LockInBothOrders(), std::exit(0)), testing::ExitedWithCode(0), "");
  EXPECT_EXIT((Listen("127.0.0.1:0", {}).IgnoreError(), LockInBothOrders(), std::exit(0)), testing::ExitedWithCode(0),
              "");
}

}  // namespace
}  // namespace polystill
