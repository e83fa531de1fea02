#include "corpus/text_sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace polystill::corpus {
namespace {

using testing::ElementsAre;

TEST(TextSampleTest, DependsOnTheTextsAndTheSeedAlone) {
  TextSample forward(100, 1000, 7), backward(100, 1000, 7), other(100, 1000, 8);
  for (int i = 0; i < 1000; ++i) {
    forward.Add("text " + std::to_string(i));
    other.Add("text " + std::to_string(i));
    backward.Add("text " + std::to_string(999 - i));
    backward.Add("text " + std::to_string(999 - i));
  }
  const std::vector<std::string> sample = forward.Take();
  EXPECT_EQ(sample.size(), 100u);
  EXPECT_EQ(std::set<std::string>(sample.begin(), sample.end()).size(), 100u);
  EXPECT_EQ(sample, backward.Take());
  EXPECT_NE(sample, other.Take());
}

// Of 10,000 texts, a sample of 1,000 takes about 500 from the first half: six standard deviations are 90.
TEST(TextSampleTest, IsUniform) {
  TextSample sample(1000, 1000, 3);
  for (int i = 0; i < 10'000; ++i) sample.Add(std::string(i < 5000 ? "a" : "b") + std::to_string(i));
  const std::vector<std::string> texts = sample.Take();
  const auto first = std::count_if(texts.begin(), texts.end(), [](const std::string& text) { return text[0] == 'a'; });
  EXPECT_NEAR(static_cast<double>(first), 500, 90);
}

TEST(TextSampleTest, LeavesBlanksOutAndCutsAtCharacters) {
  TextSample sample(10, 4, 1);
  sample.Add("");
  sample.Add(" \t\r\n");
  EXPECT_EQ(sample.size(), 0);
  sample.Add("abc\u00e9");  // the last character takes bytes 4 and 5
  EXPECT_THAT(sample.Take(), ElementsAre("abc"));
  sample.Add("\u65e5\u672c");
  EXPECT_THAT(sample.Take(), ElementsAre("\u65e5"));
}

}  // namespace
}  // namespace polystill::corpus
