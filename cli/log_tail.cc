#include "cli/log_tail.h"

#include <algorithm>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace polystill::cli {
namespace {
constexpr int64_t kMaxBytes = 16 << 10;
}  // namespace

std::string LogTail(const std::string& path, int64_t from, int lines) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const int64_t size = file ? static_cast<int64_t>(file.tellg()) : 0;
  if (size <= from) return "";
  const int64_t start = std::max(from, size - kMaxBytes);
  std::string text(static_cast<size_t>(size - start), '\0');
  file.seekg(start);
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  std::vector<std::string> rows = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (rows.size() > static_cast<size_t>(lines)) rows.erase(rows.begin(), rows.end() - lines);
  std::string tail;
  for (const std::string& row : rows) absl::StrAppend(&tail, "  | ", row, "\n");
  return tail;
}

}  // namespace polystill::cli
