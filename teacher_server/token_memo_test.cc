#include "teacher_server/token_memo.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace polystill::teacher_server {
namespace {

using testing::ElementsAre;

class TokenMemoTest : public testing::Test {
 protected:
  // A text's ids are its bytes.
  std::vector<int32_t> EncodeText(std::string_view text) {
    ++encoded_[std::string(text)];
    return std::vector<int32_t>(text.begin(), text.end());
  }
  Encode encode() {
    return [this](std::string_view text) { return EncodeText(text); };
  }
  std::map<std::string, int> encoded_;
};

TEST_F(TokenMemoTest, TokenisesOnce) {
  TokenMemo memo(encode(), 10'000);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(memo.Ids("ab"), ElementsAre('a', 'b'));
    EXPECT_THAT(memo.Ids("c"), ElementsAre('c'));
  }
  EXPECT_EQ(encoded_["ab"], 1);
  EXPECT_EQ(encoded_["c"], 1);
}

TEST_F(TokenMemoTest, ForgetsWhatWasUsedLongestAgo) {
  TokenMemo memo(encode(), 3 * 170);  // three short texts
  for (const char* text : {"a", "b", "c", "a", "d"}) memo.Ids(text);
  EXPECT_THAT(memo.Ids("a"), ElementsAre('a'));
  EXPECT_EQ(encoded_["a"], 1);
  memo.Ids("b");
  EXPECT_EQ(encoded_["b"], 2);
}

TEST_F(TokenMemoTest, KeepsNothingThatDoesNotFit) {
  for (const int64_t max_bytes : {0, 200}) {
    encoded_.clear();
    TokenMemo memo(encode(), max_bytes);
    const std::string text(100, 'x');
    EXPECT_EQ(memo.Ids(text).size(), 100u);
    EXPECT_EQ(memo.Ids(text).size(), 100u);
    EXPECT_EQ(encoded_[text], 2);
    EXPECT_EQ(memo.bytes(), 0);
  }
}

TEST_F(TokenMemoTest, IsRightAndBoundedUnderRandomUse) {
  TokenMemo memo(encode(), 5'000);
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    const std::string text(random() % 40, static_cast<char>('a' + random() % 26));
    EXPECT_EQ(memo.Ids(text), std::vector<int32_t>(text.begin(), text.end()));
    ASSERT_LE(memo.bytes(), 5'000);
  }
}

}  // namespace
}  // namespace polystill::teacher_server
