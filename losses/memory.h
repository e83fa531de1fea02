#pragma once

#include <algorithm>
#include <cstdint>
#include <set>

#include "losses/row_chunks.h"
#include "polystill/v1/run.pb.h"
#include "soft_labels/codec.h"

namespace polystill::losses {

// What logits and losses take of a worker's memory in one forward and backward pass, foretold by shapes alone. Without
// ATen, for those who only plan.

struct LogitShape {
  int64_t rows = 0;  // of logits, of all records of the pass
  int64_t classes = 0;
  int64_t number_bytes = 4;
  // Numbers that the student's head reads when its logits are computed chunk by chunk (Batch::head); else 0.
  int64_t head_width = 0;
};

// Whether the rows are more than one chunk: only then is there anything to gain from a head.
inline bool IsChunked(const LogitShape& shape) { return shape.rows > RowsOfChunk(std::max<int64_t>(1, shape.classes)); }

// Peak bytes of the student's logits, the labels that came for them, what losses hold of them and their gradients; an
// upper bound of at most three times what is measured (losses/memory_test.cc). Losses of features are not in it.
//
//   the student's logits and their gradient          2 rows * classes, none with a head
//   a loss in one chunk, until the backward pass     5 rows * classes
//   losses in chunks: the one that is computed       8 rows of a chunk * classes
//                     each, its gradient             rows * classes, with a head (rows + classes) * width; one more as
//                     it
//                                                    is scaled
//   dense labels, each kind once                     rows * classes float32
template <typename Losses>
int64_t LogitBytes(const Losses& losses, const LogitShape& shape) {
  const int64_t numbers = shape.rows * shape.classes;
  int64_t on_logits = 0, label_bytes = 0;
  std::set<std::pair<std::string, soft_labels::CodecSettings>> kinds;
  for (const v1::Loss& loss : losses) {
    if (loss.kind() == v1::LOSS_KIND_EMBEDDING || loss.kind() == v1::LOSS_KIND_HIDDEN) continue;
    ++on_logits;
    const bool dense = loss.kind() != v1::LOSS_KIND_TASK && soft_labels::IsDense(loss.codec());
    if (dense && kinds.emplace(loss.teacher(), soft_labels::SettingsOf(loss)).second) label_bytes += 4 * numbers;
  }
  if (on_logits == 0) return 0;
  const bool chunked = IsChunked(shape);
  const bool by_head = chunked && shape.head_width > 0;
  int64_t held = by_head ? 0 : 2 * numbers;
  if (chunked) {
    const int64_t gradient = by_head ? (shape.rows + shape.classes) * shape.head_width : numbers;
    held += 8 * RowsOfChunk(shape.classes) * shape.classes + (on_logits + 1) * gradient;
  } else {
    held += 5 * numbers * on_logits;
  }
  return held * shape.number_bytes + label_bytes;
}

}  // namespace polystill::losses
