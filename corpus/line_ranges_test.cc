#include "corpus/line_ranges.h"

#include <gtest/gtest.h>

#include "arrow/buffer.h"
#include "arrow/io/memory.h"

namespace polystill::corpus {
namespace {

// The ranges as text, so that what lies between them shows too: "a\nb\n|c".
std::string Cut(const std::string& text, int64_t lines, int64_t bytes = 1000) {
  arrow::io::BufferReader file(arrow::Buffer::FromString(text));
  std::string joined;
  int64_t end = 0;
  const std::vector<LineRange> ranges = SplitLines(file, "file", lines, bytes).value();
  for (const LineRange& range : ranges) {
    EXPECT_GE(range.lines, 1);
    EXPECT_GE(range.offset, end);
    end = range.offset + range.length;
    joined += (joined.empty() ? "" : "|") + text.substr(range.offset, range.length);
  }
  return joined;
}

TEST(LineRangesTest, CutsAtLinesAndLeavesBlankOnesOut) {
  struct Case {
    std::string text;
    int64_t lines;
    std::string ranges;
  };
  const Case cases[] = {
      {"", 2, ""},
      {"\n \n\r\n", 2, ""},
      {"a", 2, "a"},
      {"a\nb\n", 2, "a\nb\n"},
      {"a\nb\nc", 2, "a\nb\n|c"},
      {"a\r\nb\r\nc\r\nd", 2, "a\r\nb\r\n|c\r\nd"},
      {"\n\na\n\nb\n\n\nc\n", 2, "a\n\nb\n|c\n"},
      {"a\n\n", 2, "a\n\n"},
  };
  for (const Case& c : cases) EXPECT_EQ(Cut(c.text, c.lines), c.ranges) << c.text;
}

TEST(LineRangesTest, BytesAreCappedToo) {
  EXPECT_EQ(Cut("aaaa\nbb\ncc\ndddddddddddddd\ne\n", 100, 8), "aaaa\nbb\n|cc\n|dddddddddddddd\n|e\n");
}

TEST(LineRangesTest, LinesMayCrossTheChunksOfReading) {
  std::string text;
  for (int i = 0; i < 30; ++i) text += std::string(100'000, 'x') + "\n";
  arrow::io::BufferReader file(arrow::Buffer::FromString(text));
  const auto ranges = SplitLines(file, "file", 7).value();
  ASSERT_EQ(ranges.size(), 5u);
  for (size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_EQ(ranges[i].offset, static_cast<int64_t>(i) * 700'007);
    EXPECT_EQ(ranges[i].lines, i < 4 ? 7 : 2);
  }
}

}  // namespace
}  // namespace polystill::corpus
