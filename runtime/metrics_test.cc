#include "runtime/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "polystill/v1/teacher.grpc.pb.h"
#include "runtime/rpc.h"

namespace polystill {
namespace {

TEST(Metrics, AddressesAreChecked) {
  const struct {
    const char* address;
    bool insecure;
    absl::StatusCode code;
  } cases[] = {
      {"127.0.0.1:0", false, absl::StatusCode::kOk},
      {"0.0.0.0:0", true, absl::StatusCode::kOk},
      {"0.0.0.0:0", false, absl::StatusCode::kInvalidArgument},
      {"9464", false, absl::StatusCode::kInvalidArgument},
      {":9464", false, absl::StatusCode::kInvalidArgument},
      {"127.0.0.1:port", false, absl::StatusCode::kUnavailable},
  };
  for (const auto& c : cases) {
    Metrics metrics;
    const absl::Status status = metrics.Listen(c.address, c.insecure);
    EXPECT_EQ(status.code(), c.code) << c.address << ": " << status;
    EXPECT_TRUE(status.ok() || absl::StrContains(std::string(status.message()), c.address)) << status;
  }
}

TEST(Metrics, APortInUseIsTold) {
  v1::TeacherService::CallbackService service;
  const auto taken = Listen("127.0.0.1:0", {&service});
  ASSERT_TRUE(taken.ok()) << taken.status();
  const struct {
    std::string address;
    const char* says;
  } cases[] = {
      {taken->address, "the port is in use; choose another one"},
      {"[::1]:0", "Address family for hostname not supported"},
      {"127.0.0.1:port", "not known"},
      {"no-such-host.invalid:0", "Name or service not known"},
      {"192.0.2.1:0", "Cannot assign requested address"},  // TEST-NET-1: nobody's
  };
  for (const auto& c : cases) {
    Metrics metrics;
    const absl::Status status = metrics.Listen(c.address, /*insecure=*/true);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << c.address;
    EXPECT_TRUE(absl::StrContains(status.message(), c.says)) << status;
  }
  taken->server->Shutdown();
}

// civetweb alone takes two seconds.
TEST(Metrics, EndsAtOnce) {
  for (const char* address : {"127.0.0.1:0", "0.0.0.0:0", "localhost:0"}) {
    auto metrics = std::make_unique<Metrics>();
    ASSERT_TRUE(metrics->Listen(address, /*insecure=*/true).ok()) << address;
    const auto began = std::chrono::steady_clock::now();
    metrics.reset();
    EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(1)) << address;
  }
}

TEST(Metrics, BucketsRise) {
  for (const auto& bounds : {SecondsBuckets(), SizeBuckets()}) {
    EXPECT_TRUE(std::is_sorted(bounds.begin(), bounds.end()));
    EXPECT_EQ(std::adjacent_find(bounds.begin(), bounds.end()), bounds.end());
  }
  EXPECT_EQ(SecondsBuckets().front(), 1e-4);
  EXPECT_EQ(SizeBuckets().back(), 65536);
}

}  // namespace
}  // namespace polystill
