#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace polystill::soft_labels {

// One output of a teacher as its codec holds it, decoded: a row for each record, or for each token
// (soft_labels/outputs.h).
//
//   codec        numbers, row after row                         ids                      counts     offsets
//   dense_*      the logits or the feature [rows, width]        -                        -          -
//   hidden_head  what the head reads [rows, width]              -                        -          -
//   top_k        log p of the ids, log of the rest [rows, k+1]  [rows, k], ascending     -          -
//   sampled      entropy of p in nats [rows, 1]                 ascending in each row    of each id rows + 1
//   scores       log p of the ids that were asked for           -                        -          rows + 1
//   classes      -                                              arg-max [rows]           -          -
struct Array {
  std::vector<float> numbers;
  // Numbers of a row; 0 where rows differ, or have none.
  int64_t width = 0;
  std::vector<int32_t> ids = {};
  std::vector<int32_t> counts = {};
  // Where each row begins, and the last one ends: among `ids`, or with scores among `numbers`.
  std::vector<int64_t> offsets = {};
};

// Puts the rows of `more` behind those of `all`, which have the same codec and width; an empty `all` becomes `more`.
inline void Append(Array more, Array* all) {
  if (all->numbers.empty() && all->ids.empty() && all->offsets.empty()) {
    *all = std::move(more);
    return;
  }
  const auto extend = [](const auto& from, auto* to) { to->insert(to->end(), from.begin(), from.end()); };
  for (size_t row = 1; row < more.offsets.size(); ++row) {
    all->offsets.push_back(all->offsets.back() + more.offsets[row] - more.offsets[row - 1]);
  }
  extend(more.numbers, &all->numbers);
  extend(more.ids, &all->ids);
  extend(more.counts, &all->counts);
}

// How a row is called in errors, e.g. by its record's id; "row 3" when empty.
using RowName = std::function<std::string(int64_t row)>;

inline std::string NameOf(int64_t row, const RowName& row_name) {
  return row_name ? row_name(row) : absl::StrCat("row ", row);
}

}  // namespace polystill::soft_labels
