#include "student_worker/membership.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace polystill::student_worker {
namespace {

v1::WorkerOrder Assignment(int64_t generation) {
  v1::WorkerOrder order;
  order.mutable_assignment()->set_generation(generation);
  order.mutable_assignment()->mutable_job()->set_name("job");
  order.mutable_assignment()->mutable_job()->set_kind(v1::Job::KIND_TRAIN);
  return order;
}

v1::WorkerOrder Regroup(int64_t generation, bool at_boundary = false) {
  v1::WorkerOrder order;
  order.mutable_regroup()->set_generation(generation);
  order.mutable_regroup()->set_at_boundary(at_boundary);
  return order;
}

class MembershipTest : public testing::Test {
 protected:
  void Connect() {
    membership_.Connect([this](v1::WorkerMessage message) { said_.push_back(std::move(message)); });
  }

  std::stop_source stop_;
  Membership membership_{stop_};
  std::vector<v1::WorkerMessage> said_;
};

TEST_F(MembershipTest, AnOrderToRegroupBreaksOffTheGenerationUnderWayAlone) {
  Connect();
  membership_.Obey(Assignment(1));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  const std::stop_token first = membership_.leave();
  membership_.Joined();
  membership_.Obey(Regroup(2));  // of no generation that it knows
  EXPECT_FALSE(first.stop_requested());
  membership_.Obey(Regroup(1, /*at_boundary=*/true));
  EXPECT_FALSE(first.stop_requested());
  EXPECT_TRUE(membership_.leave_at_boundary());
  membership_.Obey(Regroup(1));
  EXPECT_TRUE(first.stop_requested());
  EXPECT_TRUE(membership_.must_leave());
  membership_.Leave(absl::OkStatus());
  ASSERT_EQ(said_.size(), 1);
  EXPECT_FALSE(said_[0].interrupted().standing().working());

  membership_.Obey(Assignment(2));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  EXPECT_FALSE(membership_.leave().stop_requested());
  EXPECT_FALSE(membership_.must_leave());
}

TEST_F(MembershipTest, WhatIsSaidWhileThereIsNoCoordinatorIsInTheNextHello) {
  Connect();
  membership_.Obey(Assignment(1));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  membership_.Disconnect();
  membership_.Failed(absl::DataLossError("torn"));
  EXPECT_TRUE(said_.empty());
  const auto greeting = membership_.Connect([this](v1::WorkerMessage message) { said_.push_back(std::move(message)); });
  EXPECT_FALSE(greeting.standing.working());
  ASSERT_TRUE(greeting.last_word.has_value());
  EXPECT_EQ(greeting.last_word->failed().message(), "torn");
  EXPECT_TRUE(said_.empty());
}

TEST_F(MembershipTest, AStopBreaksOffWhatIsNotAtWorkYet) {
  membership_.Obey(Assignment(1));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  v1::WorkerOrder stop;
  stop.mutable_stop();
  membership_.Obey(stop);
  EXPECT_TRUE(stop_.stop_requested());
  EXPECT_TRUE(membership_.leave().stop_requested());
  EXPECT_FALSE(membership_.NextAssignment().has_value());
}

TEST_F(MembershipTest, AStopLetsTheRanksComeToABoundary) {
  membership_.Obey(Assignment(1));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  membership_.Joined();
  ASSERT_TRUE(membership_.Agree(std::vector<v1::StateNote>(1)).ok());
  membership_.Agreed("digest");
  v1::WorkerOrder stop;
  stop.mutable_stop();
  membership_.Obey(stop);
  EXPECT_TRUE(stop_.stop_requested());
  EXPECT_FALSE(membership_.leave().stop_requested());
}

TEST_F(MembershipTest, WhoWaitsIsWoken) {
  std::jthread coordinator([this] {
    membership_.Obey(Assignment(1));
    membership_.Obey(Assignment(1));  // again: nothing new
  });
  EXPECT_EQ(membership_.NextAssignment()->generation(), 1);
  membership_.Leave(absl::AbortedError("a peer is gone"));
  coordinator.join();
  std::jthread owner([this] { stop_.request_stop(); });
  EXPECT_FALSE(membership_.NextAssignment().has_value());
}

TEST_F(MembershipTest, ThePulseIsThatOfWhoeverTrains) {
  EXPECT_FALSE(membership_.Pulse().idle());
  std::jthread trainer([this] { EXPECT_TRUE(membership_.NextAssignment().has_value()); });
  while (!membership_.Pulse().idle()) std::this_thread::yield();
  EXPECT_EQ(membership_.Pulse().begun(), 0);
  membership_.Obey(Assignment(3));
  trainer.join();
  EXPECT_FALSE(membership_.Pulse().idle());
  EXPECT_EQ(membership_.Pulse().begun(), 3);
  membership_.Joined();
  membership_.Obey(Regroup(3));
  membership_.Leave(absl::OkStatus());
  // Ordered, but nobody has begun it.
  membership_.Obey(Assignment(4));
  EXPECT_FALSE(membership_.Pulse().idle());
  EXPECT_EQ(membership_.Pulse().begun(), 3);
}

TEST_F(MembershipTest, TellsOfTeachersWhoseReplicasHaveChanged) {
  membership_.Obey(Assignment(1));
  ASSERT_TRUE(membership_.NextAssignment().has_value());
  std::vector<int> replicas;
  membership_.ListenToTeachers(
      [&](const v1::WorkerOrder::Assignment& assignment) { replicas.push_back(assignment.teachers_size()); });
  v1::WorkerOrder teachers;
  teachers.mutable_teachers()->set_generation(1);
  teachers.mutable_teachers()->add_teachers()->set_name("english");
  membership_.Obey(teachers);
  membership_.ListenToTeachers(nullptr);
  membership_.Obey(teachers);
  EXPECT_EQ(replicas, (std::vector<int>{0, 1}));
}

}  // namespace
}  // namespace polystill::student_worker
