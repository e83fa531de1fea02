#include "corpus/line_ranges.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "arrow/buffer.h"
#include "runtime/arrow_status.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

// Arrow parses at most 2 GiB at once.
constexpr int64_t kMaxLineBytes = int64_t{1} << 30;
constexpr int64_t kChunkBytes = 1 << 20;

// Gathers lines into ranges as the bytes go by.
class Splitter {
 public:
  Splitter(int64_t lines_per_range, int64_t bytes_per_range)
      : lines_per_range_(lines_per_range), bytes_per_range_(bytes_per_range) {}

  // Bytes that hold no line end.
  void Append(const char* bytes, int64_t size) {
    line_bytes_ += size;
    for (int64_t i = 0; blank_ && i < size; ++i) blank_ = bytes[i] == ' ' || bytes[i] == '\t' || bytes[i] == '\r';
  }

  // `terminator`: bytes of the line's end, 0 for a last line without one.
  void EndLine(int64_t terminator) {
    const int64_t bytes = line_bytes_ + terminator;
    const bool full = range_.lines >= lines_per_range_ || range_.length + bytes > bytes_per_range_;
    if (range_.lines > 0 && full) CloseRange();
    if (range_.lines == 0 && blank_) {
      range_.offset += bytes;
    } else {
      range_.length += bytes;
      range_.lines += blank_ ? 0 : 1;
    }
    line_bytes_ = 0;
    blank_ = true;
  }

  std::vector<LineRange> Finish() {
    if (line_bytes_ > 0) EndLine(0);
    if (range_.lines > 0) CloseRange();
    return std::move(ranges_);
  }

  int64_t line_bytes() const { return line_bytes_; }

 private:
  void CloseRange() {
    ranges_.push_back(range_);
    range_ = {.offset = range_.offset + range_.length};
  }

  const int64_t lines_per_range_;
  const int64_t bytes_per_range_;
  std::vector<LineRange> ranges_;
  LineRange range_;
  int64_t line_bytes_ = 0;
  bool blank_ = true;
};

}  // namespace

absl::StatusOr<std::vector<LineRange>> SplitLines(arrow::io::RandomAccessFile& file, const std::string& name,
                                                  int64_t lines_per_range, int64_t bytes_per_range) {
  Splitter splitter(lines_per_range, bytes_per_range);
  int64_t offset = 0;
  while (true) {
    ASSIGN_OR_RETURN(const std::shared_ptr<arrow::Buffer> chunk,
                     FromArrow(file.ReadAt(offset, kChunkBytes), absl::StatusCode::kDataLoss, name));
    if (chunk->size() == 0) return splitter.Finish();
    offset += chunk->size();
    const char* at = reinterpret_cast<const char*>(chunk->data());
    const char* const end = at + chunk->size();
    while (const char* newline = static_cast<const char*>(std::memchr(at, '\n', end - at))) {
      splitter.Append(at, newline - at);
      splitter.EndLine(1);
      at = newline + 1;
    }
    splitter.Append(at, end - at);
    if (splitter.line_bytes() > kMaxLineBytes) {
      return absl::InvalidArgumentError(absl::StrCat(name, ": a line of over 1 GiB before byte ", offset));
    }
  }
}

}  // namespace polystill::corpus
