#include "cli/restarts.h"

#include <gtest/gtest.h>

namespace polystill::cli {
namespace {

using std::chrono::seconds;

TEST(Restarts, FourTimesAMinuteForEachProcess) {
  Restarts restarts;
  const Restarts::Instant start;
  EXPECT_EQ(restarts.Next("a", start), start);
  EXPECT_EQ(restarts.Next("a", start + seconds(10)), start + seconds(11));
  EXPECT_EQ(restarts.Next("b", start + seconds(10)), start + seconds(10));
  EXPECT_EQ(restarts.Next("a", start + seconds(20)), start + seconds(21));
  EXPECT_EQ(restarts.Next("a", start + seconds(30)), start + seconds(31));
  EXPECT_EQ(restarts.Next("a", start + seconds(59)), std::nullopt);
  EXPECT_EQ(restarts.Next("a", start + seconds(60)), start + seconds(61));  // the first is forgotten
  EXPECT_EQ(restarts.Next("a", start + seconds(61)), std::nullopt);
  EXPECT_EQ(restarts.Next("a", start + seconds(200)), start + seconds(200));
}

}  // namespace
}  // namespace polystill::cli
