#include "soft_labels/replica_ring.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<std::string> Ids(int count) {
  std::vector<std::string> ids;
  for (int i = 0; i < count; ++i) ids.push_back(absl::StrCat("10.7.0.", i, ":7000"));
  return ids;
}

TEST(ReplicaRing, OfAFewAll) {
  EXPECT_THAT(ReplicaRing({}).For("worker"), IsEmpty());
  EXPECT_THAT(ReplicaRing(Ids(3)).For("worker"), ElementsAre(0, 1, 2));
  EXPECT_THAT(ReplicaRing(Ids(8)).For("worker"), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

// That the shares are fair, and that few change, is in coordinator/replica_choice_test.cc.
TEST(ReplicaRing, OfManyAShareThatDependsOnTheClient) {
  const ReplicaRing ring(Ids(100));
  const std::vector<size_t> share = ring.For("worker-0");
  EXPECT_THAT(share, SizeIs(ReplicaRing::kMost));
  EXPECT_TRUE(std::is_sorted(share.begin(), share.end()));
  EXPECT_EQ(share, ReplicaRing(Ids(100)).For("worker-0"));
  EXPECT_NE(share, ring.For("worker-1"));
}

}  // namespace
}  // namespace polystill::soft_labels
