#include "student_worker/inputs.h"

#include <gtest/gtest.h>

namespace polystill::student_worker {
namespace {

corpus::Record SomeRecord() {
  corpus::Record record;
  record.id = "r";
  record.text = "Hallo";
  record.source_text = "hello";
  record.ids = {1, 2};
  record.source_ids = {3};
  return record;
}

TEST(TokenIdsOf, TakesTheSideThatIsRead) {
  EXPECT_EQ(TokenIdsOf(SomeRecord(), v1::SIDE_TEXT, nullptr), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(TokenIdsOf(SomeRecord(), v1::SIDE_SOURCE_TEXT, nullptr), std::vector<int32_t>{3});
}

TEST(GoldOf, IsInTheTasksForm) {
  corpus::Record record;
  EXPECT_EQ(GoldOf(v1::TASK_CLASSIFICATION, record), std::vector<int64_t>{-1});
  record.label = 1;
  record.labels = {0, 1, 1};
  EXPECT_EQ(GoldOf(v1::TASK_BINARY, record), std::vector<int64_t>{1});
  EXPECT_EQ(GoldOf(v1::TASK_MULTI_LABEL, record), (std::vector<int64_t>{0, 1, 1}));
}

TEST(JudgedTokensOf, WordsAreJudgedAtTheirFirstTokenAndIdsEachByItself) {
  corpus::Record record;
  record.words = {"a", "b", "c", "d"};
  record.labels = {2, -1, 0, 1};
  const Tokens tokens = {{5, 6, 7, 8, 9}, {0, 2, 3}};  // d does not fit
  JudgedTokens judged = JudgedTokensOf(record, tokens);
  EXPECT_EQ(judged.positions, (std::vector<int32_t>{0, 3}));
  EXPECT_EQ(judged.words, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(judged.gold, (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(judged.cut, 1);
  judged = JudgedTokensOf(record, tokens, 2);
  EXPECT_EQ(judged.words, std::vector<int32_t>{0});
  EXPECT_EQ(judged.cut, 2);

  record.labels = {};
  judged = JudgedTokensOf(record, tokens);
  EXPECT_EQ(judged.positions, (std::vector<int32_t>{0, 2, 3}));
  EXPECT_EQ(judged.gold, (std::vector<int64_t>{-1, -1, -1}));
  EXPECT_EQ(judged.cut, 1);

  corpus::Record of_ids;
  of_ids.ids = {5, 6};
  of_ids.labels = {-1, 1, 0};  // the third id was cut
  judged = JudgedTokensOf(of_ids, {of_ids.ids, {}});
  EXPECT_EQ(judged.positions, std::vector<int32_t>{1});
  EXPECT_EQ(judged.gold, std::vector<int64_t>{1});
  EXPECT_EQ(judged.cut, 1);
}

TEST(TokenMemo, RemembersARecordWhateverThePass) {
  TokenMemo memo(1 << 20);
  EXPECT_EQ(memo.Find({0, 0, 1, 2}), nullptr);
  memo.Put({0, 0, 1, 2}, {{7, 8}, {0}});
  ASSERT_NE(memo.Find({0, 5, 1, 2}), nullptr);
  EXPECT_EQ(memo.Find({0, 5, 1, 2})->ids, (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(memo.Find({0, 5, 1, 2})->firsts, std::vector<int32_t>{0});
  EXPECT_EQ(memo.Find({0, 0, 1, 3}), nullptr);
  EXPECT_EQ(memo.Find({1, 0, 1, 2}), nullptr);
}

TEST(TokenMemo, ForgetsTheLeastRecentlyUsedBeyondItsBytes) {
  constexpr int64_t kMaxBytes = 1000;
  TokenMemo memo(kMaxBytes);
  memo.Put({0, 0, 0, 0}, {std::vector<int32_t>(50), {}});
  memo.Put({0, 0, 0, 1}, {std::vector<int32_t>(50), {}});
  EXPECT_NE(memo.Find({0, 0, 0, 0}), nullptr);
  memo.Put({0, 0, 0, 2}, {std::vector<int32_t>(50), {}});  // 3 * (200 + 128) fit
  memo.Put({0, 0, 0, 3}, {std::vector<int32_t>(50), {}});
  EXPECT_LE(memo.bytes(), kMaxBytes);
  EXPECT_NE(memo.Find({0, 0, 0, 0}), nullptr);
  EXPECT_EQ(memo.Find({0, 0, 0, 1}), nullptr);
  memo.Put({0, 0, 0, 4}, {std::vector<int32_t>(5000), {}});  // more than all
  EXPECT_LE(memo.bytes(), kMaxBytes);
}

}  // namespace
}  // namespace polystill::student_worker
