#include "runtime/utf8.h"

#include <gtest/gtest.h>

namespace polystill {
namespace {

TEST(Utf8, KnowsWellFormedText) {
  for (const char* good : {"", "a", "Grüße", "日本語", "🙂", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80",
                           "long enough for eight bytes at a time: ü"}) {
    EXPECT_TRUE(IsUtf8(good)) << good;
  }
  for (const char* bad :
       {"\x80", "\xc3", "a\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80", "\xf0\x80\x80\xaf", "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80", "\xff", "\xe6\x97", "eight of\xff them", "ends in the midst\xf0\x9f\x99"}) {
    EXPECT_FALSE(IsUtf8(bad)) << testing::PrintToString(std::string(bad));
  }
}

TEST(Utf8, PrefixesEndWithAWholeCharacter) {
  EXPECT_EQ(Utf8Prefix("aü", 3), "aü");
  EXPECT_EQ(Utf8Prefix("aü", 2), "a");
  EXPECT_EQ(Utf8Prefix("🙂🙂", 7), "🙂");
  EXPECT_EQ(Utf8Prefix("🙂", 3), "");
  EXPECT_EQ(Excerpt(std::string(199, 'x') + "ü"), std::string(199, 'x'));
}

TEST(Utf8, EscapesOnlyWhatIsNotUtf8) {
  EXPECT_EQ(EscapeUnlessUtf8("Grüße"), "Grüße");
  EXPECT_EQ(EscapeUnlessUtf8("caf\xe9.jsonl"), "caf\\xe9.jsonl");
}

}  // namespace
}  // namespace polystill
