#include "runtime/nearest_name.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace polystill {
namespace {

// Longer words are not compared: no name of ours comes near, and the cost grows with the square.
constexpr size_t kMaxWord = 64;

// Optimal string alignment distance (Levenshtein and exchanges of neighbours), three rows at a time.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> before(b.size() + 1), previous(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) previous[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(previous);
    previous.swap(row);
  }
  return previous[b.size()];
}

}  // namespace

std::string NearestName(const std::string& word, const std::vector<std::string>& names) {
  if (word.empty() || word.size() > kMaxWord) return "";
  std::string nearest;
  size_t smallest = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : names) {
    const size_t distance = EditDistance(word, name);
    if (distance >= smallest || distance >= name.size()) continue;
    smallest = distance;
    nearest = name;
  }
  return nearest;
}

std::string Suggestion(const std::string& word, const std::vector<std::string>& names) {
  if (const std::string nearest = NearestName(word, names); !nearest.empty()) {
    return absl::StrCat("; did you mean ", nearest, "?");
  }
  return names.empty() ? "" : absl::StrCat("; known: ", absl::StrJoin(names, ", "));
}

}  // namespace polystill
