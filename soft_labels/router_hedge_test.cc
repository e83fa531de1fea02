#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "soft_labels/router.h"

// Hedges, homes and windows.
namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Verdict = Router::Verdict;

// Hedges from the second answer on, after at least 100 ms, as many as one likes.
constexpr Router::Options kOptions = {.give_up_after_ms = 10'000,
                                      .request_timeout_ms = 1'000,
                                      .backoff = {.first_ms = 100, .max_ms = 400},
                                      .hedging = {.least_samples = 2, .share = 1, .least_ms = 100}};

std::vector<std::pair<int, uint64_t>> Sent(const Router::Actions& actions) {
  std::vector<std::pair<int, uint64_t>> sent;
  for (const Router::Send& send : actions.send) sent.emplace_back(send.replica, send.piece);
  return sent;
}

class RouterHedgeTest : public testing::Test {
 protected:
  // Replicas that are open with 100 credits and 50 records a request, and have answered twice at once.
  void Start(int replicas, const Router::Options& options = kOptions, int answers = 2) {
    std::vector<std::string> names;
    for (int i = 0; i < replicas; ++i) names.push_back("host" + std::to_string(i));
    router_.emplace(names, options);
    router_->Step(0);
    for (int i = 0; i < replicas; ++i) router_->Opened(i, 100, 50);
    for (int i = 0; i < answers; ++i) {
      Add(1'000 + i);
      const auto sent = router_->Step(0).send;
      ASSERT_EQ(sent.size(), 1u);
      Reply(sent[0], 0);
    }
  }

  void Add(uint64_t piece, int64_t tokens = 10, int home = Router::kAnywhere, int64_t now_ms = 0) {
    router_->Add(piece, {.records = 10, .tokens = tokens, .home = home}, now_ms);
  }

  Verdict Reply(const Router::Send& send, int64_t now_ms, const absl::Status& status = absl::OkStatus()) {
    uint64_t piece = 0;
    const Verdict verdict = router_->Replied(send.replica, send.request_id, status, 0, now_ms, &piece);
    EXPECT_TRUE(verdict != Verdict::kDeliver || piece == send.piece);
    return verdict;
  }

  std::optional<Router> router_;
};

TEST_F(RouterHedgeTest, TheFirstAnswerCountsAndTheOtherRequestIsCancelled) {
  for (const bool hedge_wins : {true, false}) {
    Start(2);
    Add(1);
    const auto first = router_->Step(0);
    ASSERT_EQ(first.send.size(), 1u);
    EXPECT_EQ(first.next_ms, 100);
    EXPECT_THAT(router_->Step(99).send, IsEmpty());
    const auto second = router_->Step(100);
    ASSERT_EQ(second.send.size(), 1u);
    EXPECT_EQ(second.send[0].piece, 1u);
    EXPECT_NE(second.send[0].replica, first.send[0].replica);
    EXPECT_THAT(router_->Step(500).send, IsEmpty());  // once
    const Router::Send winner = hedge_wins ? second.send[0] : first.send[0];
    const Router::Send loser = hedge_wins ? first.send[0] : second.send[0];
    EXPECT_EQ(Reply(winner, 600), Verdict::kDeliver);
    const auto after = router_->Step(600);
    ASSERT_EQ(after.cancel.size(), 1u);
    EXPECT_EQ(after.cancel[0].replica, loser.replica);
    EXPECT_EQ(after.cancel[0].request_id, loser.request_id);
    EXPECT_EQ(Reply(loser, 700), Verdict::kLate);
    EXPECT_EQ(Reply(loser, 700), Verdict::kUnknown);
    EXPECT_EQ(router_->counts().hedges, 1);
    EXPECT_EQ(router_->counts().hedge_wins, hedge_wins ? 1 : 0);
    EXPECT_EQ(router_->counts().requests, 4);
    EXPECT_EQ(router_->counts().retries, 0);
  }
}

TEST_F(RouterHedgeTest, OneReplicaIsNotHedged) {
  Start(1);
  Add(1);
  const auto first = router_->Step(0);
  EXPECT_EQ(first.next_ms, 1'000);
  EXPECT_THAT(router_->Step(999).send, IsEmpty());
}

TEST_F(RouterHedgeTest, NoMoreThanTheShare) {
  Router::Options options = kOptions;
  options.hedging.share = 0.25;
  Start(2, options, 2);
  for (uint64_t piece = 1; piece <= 7; ++piece) Add(piece);
  EXPECT_EQ(router_->Step(0).send.size(), 7u);
  EXPECT_EQ(router_->Step(500).send.size(), 2u);  // a quarter of 2 + 7
  EXPECT_EQ(router_->counts().hedges, 2);
}

TEST_F(RouterHedgeTest, WhatEndsOneRequestLeavesTheOther) {
  struct Case {
    const char* name;
    bool first;  // which of the two requests
    std::function<void(Router&, const Router::Send&)> end;
  };
  const auto broken = [](Router& router, const Router::Send& send) {
    router.Broken(send.replica, absl::UnavailableError("gone"), 200);
  };
  const auto full = [](Router& router, const Router::Send& send) {
    uint64_t piece = 0;
    EXPECT_EQ(router.Replied(send.replica, send.request_id, absl::ResourceExhaustedError("full"), 0, 200, &piece),
              Verdict::kAgain);
  };
  const Case cases[] = {{"first broken", true, broken},
                        {"hedge broken", false, broken},
                        {"first full", true, full},
                        {"hedge full", false, full}};
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Start(2);
    Add(1);
    const Router::Send first = router_->Step(0).send.at(0), hedge = router_->Step(100).send.at(0);
    c.end(*router_, c.first ? first : hedge);
    EXPECT_EQ(router_->waiting_records(), 0);
    EXPECT_THAT(router_->Step(200).send, IsEmpty());
    EXPECT_EQ(Reply(c.first ? hedge : first, 250), Verdict::kDeliver);
    EXPECT_THAT(router_->Step(250).cancel, IsEmpty());
    EXPECT_EQ(router_->counts().retries, 0);
  }
}

TEST_F(RouterHedgeTest, BothLostIsAskedAgain) {
  Start(2);
  Add(1);
  const Router::Send first = router_->Step(0).send.at(0), hedge = router_->Step(100).send.at(0);
  EXPECT_EQ(Reply(first, 200, absl::ResourceExhaustedError("full")), Verdict::kAgain);
  EXPECT_EQ(Reply(hedge, 200, absl::ResourceExhaustedError("full")), Verdict::kAgain);
  EXPECT_EQ(router_->waiting_records(), 10);
  EXPECT_EQ(router_->counts().retries, 1);
  const auto again = router_->Step(600);
  ASSERT_EQ(again.send.size(), 1u);
  EXPECT_EQ(Reply(again.send[0], 610), Verdict::kDeliver);
}

TEST_F(RouterHedgeTest, TheFirstTimesOutAndTheHedgeGoesOn) {
  Start(2);
  Add(1);
  const Router::Send first = router_->Step(0).send.at(0), hedge = router_->Step(100).send.at(0);
  const auto actions = router_->Step(1'000);
  ASSERT_EQ(actions.cancel.size(), 1u);
  EXPECT_EQ(actions.cancel[0].request_id, first.request_id);
  EXPECT_THAT(actions.send, IsEmpty());
  EXPECT_EQ(Reply(hedge, 1'050), Verdict::kDeliver);
  EXPECT_EQ(Reply(first, 1'060), Verdict::kLate);
}

TEST_F(RouterHedgeTest, ForgottenIsCancelledAtBoth) {
  Start(2);
  Add(1);
  router_->Step(0);
  router_->Step(100);
  router_->Forget(1);
  EXPECT_EQ(router_->Step(100).cancel.size(), 2u);
}

TEST_F(RouterHedgeTest, ALateReplicaGetsNothingMoreWhileAnotherMayBeAsked) {
  Start(2);
  Add(1);
  const Router::Send first = router_->Step(0).send.at(0);
  EXPECT_EQ(first.replica, 0);
  const Router::Send hedge = router_->Step(100).send.at(0);
  // Also where the other has more to do, and where it is full.
  for (uint64_t piece = 2; piece <= 12; ++piece) Add(piece, 10, Router::kAnywhere, 100);
  for (const auto& [replica, piece] : Sent(router_->Step(100))) EXPECT_EQ(replica, 1) << piece;
  EXPECT_EQ(router_->waiting_records(), 20);
  EXPECT_THAT(router_->Askable(100), ElementsAre(1));
  EXPECT_EQ(Reply(hedge, 110), Verdict::kDeliver);
  EXPECT_EQ(Reply(first, 120), Verdict::kLate);
  EXPECT_THAT(router_->Askable(120), ElementsAre(0, 1));
  EXPECT_THAT(Sent(router_->Step(120)), ElementsAre(std::pair(0, 11), std::pair(0, 12)));
  // Where all are late they are asked all the same.
  router_->Step(1'300);  // all time out
  EXPECT_THAT(router_->Askable(1'800), ElementsAre(0, 1));
}

TEST_F(RouterHedgeTest, FewestTokensNotRecords) {
  Start(2);
  Add(1, 500);
  Add(2, 30);
  Add(3, 30);
  Add(4, 30);
  EXPECT_THAT(Sent(router_->Step(0)), ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(1, 3), std::pair(1, 4)));
}

TEST_F(RouterHedgeTest, AWindowBoundsTokensAndFollowsAnswers) {
  Router::Options options = kOptions;
  options.window.first_tokens = 100;
  Start(1, options, 0);
  for (uint64_t piece = 1; piece <= 9; ++piece) Add(piece, 40);
  const auto first = router_->Step(0);
  ASSERT_THAT(Sent(first), ElementsAre(std::pair(0, 1), std::pair(0, 2)));
  Reply(first.send[0], 10);  // the window is 140 now
  EXPECT_THAT(Sent(router_->Step(10)), ElementsAre(std::pair(0, 3), std::pair(0, 4)));
  Reply(first.send[1], 20, absl::ResourceExhaustedError("full"));  // 98
  EXPECT_THAT(Sent(router_->Step(600)), IsEmpty());                // 80 are in flight
}

TEST_F(RouterHedgeTest, APieceWaitsForItsHomeAndGoesElsewhereOnlyWhenThatIsNotToBeAsked) {
  Start(2, kOptions, 0);
  for (uint64_t piece = 1; piece <= 11; ++piece) Add(piece, 10, 0);
  Add(12, 10, 1);
  Add(13);
  // Ten fill the credits of the home; the eleventh waits and holds up nobody.
  const auto first = router_->Step(0);
  ASSERT_EQ(first.send.size(), 12u);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(first.send[i].replica, 0);
  EXPECT_EQ(first.send[10].piece, 12u);
  EXPECT_EQ(first.send[11].piece, 13u);
  EXPECT_EQ(first.send[11].replica, 1);
  Reply(first.send[0], 1);
  EXPECT_THAT(Sent(router_->Step(1)), ElementsAre(std::pair(0, 11)));
  // The home pauses.
  Reply(first.send[1], 2, absl::ResourceExhaustedError("full"));
  EXPECT_THAT(router_->Askable(2), ElementsAre(1));
  EXPECT_THAT(Sent(router_->Step(2)), ElementsAre(std::pair(1, 2)));
  // The home is gone.
  router_->Broken(0, absl::UnavailableError("gone"), 3);
  for (const auto& [replica, piece] : Sent(router_->Step(3))) EXPECT_EQ(replica, 1) << piece;
}

TEST_F(RouterHedgeTest, AHedgeLeavesTheHome) {
  Start(2);
  Add(1, 10, 1);
  EXPECT_THAT(Sent(router_->Step(0)), ElementsAre(std::pair(1, 1)));
  EXPECT_THAT(Sent(router_->Step(100)), ElementsAre(std::pair(0, 1)));
}

}  // namespace
}  // namespace polystill::soft_labels
