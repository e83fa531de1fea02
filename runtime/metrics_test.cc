#include "runtime/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/match.h"

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
