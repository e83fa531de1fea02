#include "soft_labels/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace polystill::soft_labels {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Verdict = Router::Verdict;

constexpr Router::Options kOptions = {
    .give_up_after_ms = 10'000, .request_timeout_ms = 1'000, .backoff = {.first_ms = 100, .max_ms = 400}};

// A piece whose records have a token each.
void Add(Router& router, uint64_t piece, int64_t records, int64_t now_ms) {
  router.Add(piece, {.records = records, .tokens = records}, now_ms);
}

// (replica, piece) of what was sent.
std::vector<std::pair<int, uint64_t>> Sent(const Router::Actions& actions) {
  std::vector<std::pair<int, uint64_t>> sent;
  for (const Router::Send& send : actions.send) sent.emplace_back(send.replica, send.piece);
  return sent;
}

// A router whose replicas are all open with 100 credits and 50 records a request.
Router OpenRouter(int replicas, Router::Options options = kOptions) {
  std::vector<std::string> names;
  for (int i = 0; i < replicas; ++i) names.push_back("host" + std::to_string(i));
  Router router(names, options);
  router.Step(0);
  for (int i = 0; i < replicas; ++i) router.Opened(i, 100, 50);
  return router;
}

TEST(RouterTest, ConnectsThenSendsToTheLeastBusyWithinItsCredits) {
  Router router({"a", "b"}, kOptions);
  Add(router, 1, 40, 0);
  const Router::Actions first = router.Step(0);
  EXPECT_THAT(first.connect, ElementsAre(0, 1));
  EXPECT_THAT(first.send, IsEmpty());
  router.Opened(0, 100, 50);
  router.Opened(1, 60, 50);
  for (uint64_t piece = 2; piece <= 5; ++piece) Add(router, piece, 40, 0);
  EXPECT_THAT(Sent(router.Step(1)), ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(0, 3)));
  EXPECT_EQ(router.waiting_records(), 80);
}

TEST(RouterTest, ReplicasComeAndGo) {
  Router router = OpenRouter(1);
  Add(router, 1, 10, 0);
  ASSERT_THAT(Sent(router.Step(0)), ElementsAre(std::pair(0, 1)));
  router.Left(0, 1);
  EXPECT_THAT(Sent(router.Step(1)), IsEmpty());
  EXPECT_TRUE(router.AllRefused().ok());
  const Router::Actions later = router.Step(5'000);
  EXPECT_THAT(later.connect, IsEmpty());
  EXPECT_THAT(later.fail, IsEmpty());
  router.Joined("new");
  EXPECT_THAT(router.Step(5'001).connect, ElementsAre(1));
  router.Opened(1, 100, 50);
  EXPECT_THAT(Sent(router.Step(5'002)), ElementsAre(std::pair(1, 1)));
  router.Back(0);
  EXPECT_THAT(router.Step(5'003).connect, ElementsAre(0));
}

TEST(RouterTest, AnAnswerFreesItsCredits) {
  Router router = OpenRouter(1);
  for (uint64_t piece = 1; piece <= 3; ++piece) Add(router, piece, 50, 0);
  const auto actions = router.Step(0);
  ASSERT_THAT(Sent(actions), ElementsAre(std::pair(0, 1), std::pair(0, 2)));
  uint64_t piece = 0;
  EXPECT_EQ(router.Replied(0, actions.send[1].request_id, absl::OkStatus(), 0, 5, &piece), Verdict::kDeliver);
  EXPECT_EQ(piece, 2u);
  EXPECT_EQ(router.Replied(0, actions.send[1].request_id, absl::OkStatus(), 0, 5, &piece), Verdict::kUnknown);
  EXPECT_EQ(router.Replied(0, 999, absl::OkStatus(), 0, 5, &piece), Verdict::kUnknown);
  EXPECT_THAT(Sent(router.Step(5)), ElementsAre(std::pair(0, 3)));
}

TEST(RouterTest, VerdictByStatus) {
  struct Case {
    absl::Status status;
    Verdict verdict;
  };
  const Case cases[] = {
      {absl::OkStatus(), Verdict::kDeliver},
      {absl::InvalidArgumentError(""), Verdict::kDeliver},
      {absl::InternalError(""), Verdict::kDeliver},
      {absl::CancelledError(""), Verdict::kDeliver},
      {absl::FailedPreconditionError(""), Verdict::kDeliver},
      {absl::UnavailableError(""), Verdict::kAgain},
      {absl::ResourceExhaustedError(""), Verdict::kAgain},
      {absl::DeadlineExceededError(""), Verdict::kAgain},
  };
  for (const Case& c : cases) {
    Router router = OpenRouter(1);
    Add(router, 1, 1, 0);
    const uint64_t request = router.Step(0).send.at(0).request_id;
    uint64_t piece = 0;
    EXPECT_EQ(router.Replied(0, request, c.status, 0, 0, &piece), c.verdict) << c.status;
    EXPECT_EQ(piece, 1u);
    EXPECT_EQ(router.waiting_records(), c.verdict == Verdict::kAgain ? 1 : 0);
  }
}

TEST(RouterTest, AFullReplicaPausesAndAnotherIsAskedAtOnce) {
  Router router = OpenRouter(2);
  Add(router, 1, 10, 0);
  const uint64_t request = router.Step(0).send.at(0).request_id;
  uint64_t piece = 0;
  router.Replied(0, request, absl::ResourceExhaustedError("full"), 700, 10, &piece);
  Add(router, 2, 50, 10);
  Add(router, 3, 50, 10);
  const auto actions = router.Step(10);
  EXPECT_THAT(Sent(actions), ElementsAre(std::pair(1, 1), std::pair(1, 2)));  // 3 does not fit there
  EXPECT_EQ(actions.next_ms, 710);
  EXPECT_THAT(Sent(router.Step(709)), IsEmpty());
  EXPECT_THAT(Sent(router.Step(710)), ElementsAre(std::pair(0, 3)));
}

TEST(RouterTest, APauseThatAReplicaAsksForIsBounded) {
  for (const int64_t asked : {std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    Router router = OpenRouter(1);
    Add(router, 1, 1, 0);
    uint64_t piece = 0;
    router.Replied(0, router.Step(0).send.at(0).request_id, absl::UnavailableError(""), asked, 1000, &piece);
    const int64_t next = router.Step(1000).next_ms;
    EXPECT_GT(next, 1000);
    EXPECT_LE(next, 61'000);
  }
}

TEST(RouterTest, PausesGrowUntilSomethingIsDelivered) {
  Router router = OpenRouter(1);
  Add(router, 1, 1, 0);
  int64_t now = 0;
  uint64_t piece = 0;
  for (const int64_t full : {100, 200, 400, 400}) {
    const uint64_t request = router.Step(now).send.at(0).request_id;
    router.Replied(0, request, absl::UnavailableError(""), 0, now, &piece);
    const int64_t next = router.Step(now).next_ms;
    EXPECT_GE(next - now, full / 2);
    EXPECT_LE(next - now, full);
    now = next;
  }
  EXPECT_EQ(router.Replied(0, router.Step(now).send.at(0).request_id, absl::OkStatus(), 0, now, &piece),
            Verdict::kDeliver);
  Add(router, 2, 1, now);
  router.Replied(0, router.Step(now).send.at(0).request_id, absl::UnavailableError(""), 0, now, &piece);
  EXPECT_LE(router.Step(now).next_ms - now, 100);
}

TEST(RouterTest, FailuresOfOneMomentCountOnce) {
  Router router = OpenRouter(1);
  for (uint64_t piece = 1; piece <= 20; ++piece) Add(router, piece, 1, 0);
  uint64_t piece = 0;
  for (const auto& send : router.Step(0).send) {
    router.Replied(0, send.request_id, absl::ResourceExhaustedError(""), 0, 0, &piece);
  }
  EXPECT_LE(router.Step(0).next_ms, 100);
}

TEST(RouterTest, ABrokenStreamGivesItsWorkToOthersInOrder) {
  Router router = OpenRouter(2);
  for (uint64_t piece = 1; piece <= 4; ++piece) Add(router, piece, 50, 0);
  ASSERT_THAT(Sent(router.Step(0)), ElementsAre(std::pair(0, 1), std::pair(1, 2), std::pair(0, 3), std::pair(1, 4)));
  router.Broken(1, absl::UnavailableError("gone"), 50);
  EXPECT_EQ(router.waiting_records(), 100);
  const auto actions = router.Step(50);
  EXPECT_THAT(actions.send, IsEmpty());
  EXPECT_GT(actions.next_ms, 50);
  EXPECT_THAT(router.Step(actions.next_ms).connect, ElementsAre(1));
  router.Opened(1, 100, 50);
  EXPECT_THAT(Sent(router.Step(actions.next_ms)), ElementsAre(std::pair(1, 2), std::pair(1, 4)));
}

TEST(RouterTest, ATimedOutRequestIsCancelledAndAskedElsewhere) {
  Router router = OpenRouter(2);
  Add(router, 1, 50, 0);
  const auto first = router.Step(0);
  EXPECT_EQ(first.next_ms, 1000);
  const auto second = router.Step(1000);
  ASSERT_EQ(second.cancel.size(), 1u);
  EXPECT_EQ(second.cancel[0].request_id, first.send[0].request_id);
  EXPECT_THAT(Sent(second), ElementsAre(std::pair(1, 1)));
  // The slow replica gets nothing more until it answers; then nobody minds the answer.
  Add(router, 2, 50, 1400);
  Add(router, 3, 50, 1400);
  Add(router, 4, 50, 1400);
  EXPECT_THAT(Sent(router.Step(1400)), ElementsAre(std::pair(1, 2)));
  uint64_t piece = 0;
  EXPECT_EQ(router.Replied(0, first.send[0].request_id, absl::OkStatus(), 0, 1401, &piece), Verdict::kLate);
  EXPECT_THAT(Sent(router.Step(1401)), ElementsAre(std::pair(0, 3), std::pair(0, 4)));
}

TEST(RouterTest, GivesUpWhenNobodyAnswers) {
  Router router({"a:1", "b:2"}, kOptions);
  Add(router, 7, 1, 500);
  router.Step(500);
  router.Broken(0, absl::UnavailableError("refused"), 600);
  EXPECT_THAT(router.Step(10'499).fail, IsEmpty());
  const auto actions = router.Step(10'500);
  ASSERT_EQ(actions.fail.size(), 1u);
  EXPECT_EQ(actions.fail[0].piece, 7u);
  EXPECT_TRUE(absl::IsUnavailable(actions.fail[0].status));
  EXPECT_THAT(std::string(actions.fail[0].status.message()),
              HasSubstr("a:1: UNAVAILABLE: refused; b:2: did not answer"));
  EXPECT_EQ(router.waiting_records(), 0);
}

TEST(RouterTest, ABusyReplicaIsWaitedForLongerThanASilentOne) {
  Router router = OpenRouter(1);
  Add(router, 1, 1, 0);
  uint64_t piece = 0;
  router.Replied(0, router.Step(0).send.at(0).request_id, absl::ResourceExhaustedError("full"), 20'000, 9'000, &piece);
  EXPECT_THAT(router.Step(18'999).fail, IsEmpty());
  EXPECT_EQ(router.Step(19'000).fail.size(), 1u);
}

TEST(RouterTest, ARefusedReplicaIsNeverAskedAgain) {
  Router router = OpenRouter(2);
  Add(router, 1, 10, 0);
  router.Step(0);
  router.Refused(0, absl::FailedPreconditionError("another digest"));
  EXPECT_TRUE(router.AllRefused().ok());
  EXPECT_THAT(Sent(router.Step(1)), ElementsAre(std::pair(1, 1)));
  EXPECT_THAT(router.Step(900).connect, IsEmpty());
  router.Refused(1, absl::FailedPreconditionError("another signature"));
  const auto actions = router.Step(901);
  ASSERT_EQ(actions.fail.size(), 1u);
  EXPECT_TRUE(absl::IsFailedPrecondition(actions.fail[0].status));
  EXPECT_THAT(std::string(actions.fail[0].status.message()), HasSubstr("another signature"));
}

TEST(RouterTest, ARefusedReplicaThatHasLeftMayBeAnotherWhenItIsBack) {
  Router router = OpenRouter(1);
  router.Refused(0, absl::FailedPreconditionError("another digest"));
  EXPECT_FALSE(router.AllRefused().ok());
  router.Left(0, 1);
  EXPECT_TRUE(router.AllRefused().ok());
  EXPECT_THAT(router.Step(5'000).connect, IsEmpty());
  router.Back(0);
  EXPECT_THAT(router.Step(5'001).connect, ElementsAre(0));
}

TEST(RouterTest, WithoutAnyReplicaPiecesWait) {
  Router router({}, kOptions);
  Add(router, 1, 10, 0);
  EXPECT_THAT(router.Step(9'999).fail, IsEmpty());
  EXPECT_EQ(router.Step(10'000).fail.size(), 1u);
}

TEST(RouterTest, AReplicaThatNeverDescribesItselfIsDisconnected) {
  Router router({"a"}, kOptions);
  EXPECT_EQ(router.Step(0).next_ms, 1000);
  EXPECT_THAT(router.Step(1000).disconnect, ElementsAre(0));
  router.Broken(0, absl::CancelledError(""), 1001);
  EXPECT_THAT(router.Step(1101).connect, ElementsAre(0));
}

TEST(RouterTest, AForgottenPieceIsCancelledOrNeverSent) {
  Router router = OpenRouter(1);
  Add(router, 1, 50, 0);
  Add(router, 2, 50, 0);
  Add(router, 3, 50, 0);
  const auto actions = router.Step(0);
  router.Forget(1);
  router.Forget(3);
  router.Forget(3);
  const auto next = router.Step(1);
  ASSERT_EQ(next.cancel.size(), 1u);
  EXPECT_EQ(next.cancel[0].request_id, actions.send[0].request_id);
  EXPECT_THAT(next.send, IsEmpty());
  EXPECT_EQ(router.waiting_records(), 0);
}

// Whatever replicas do, every piece ends exactly once and no replica is asked for more than its credits.
TEST(RouterTest, EveryPieceEndsOnceUnderRandomTrouble) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    Router router({"a", "b", "c"}, kOptions);
    std::map<uint64_t, int> ended;
    std::vector<std::map<uint64_t, uint64_t>> asked(3);  // request -> piece
    uint64_t added = 0;
    int64_t now = 0;
    for (int turn = 0; turn < 3000 && (turn < 300 || ended.size() < added); ++turn) {
      now += random() % 60;
      if (turn < 300) Add(router, ++added, 1 + random() % 50, now);
      const auto actions = router.Step(now);
      for (const int replica : actions.connect) router.Opened(replica, 100, 50);
      for (const auto& cancel : actions.cancel) EXPECT_TRUE(asked[cancel.replica].count(cancel.request_id));
      for (const auto& failure : actions.fail) ++ended[failure.piece];
      for (const auto& send : actions.send) asked[send.replica][send.request_id] = send.piece;
      const int replica = random() % 3;
      if (random() % 40 == 0) {
        router.Broken(replica, absl::UnavailableError(""), now);
        asked[replica].clear();
      } else if (!asked[replica].empty()) {
        const auto [request, piece] = *asked[replica].begin();
        asked[replica].erase(request);
        uint64_t answered = 0;
        const bool full = random() % 8 == 0;
        const auto verdict = router.Replied(
            replica, request, full ? absl::ResourceExhaustedError("") : absl::OkStatus(), 0, now, &answered);
        ASSERT_NE(verdict, Verdict::kUnknown);
        if (verdict == Verdict::kDeliver) {
          EXPECT_EQ(answered, piece);
          ++ended[answered];
        }
      }
      ASSERT_LE(asked[0].size(), 100u);
    }
    EXPECT_EQ(ended.size(), added);
    for (const auto& [piece, times] : ended) EXPECT_EQ(times, 1) << piece;
    EXPECT_EQ(router.waiting_records(), 0);
  }
}

}  // namespace
}  // namespace polystill::soft_labels
