#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <functional>

#include "losses/row_chunks.h"

namespace polystill::losses {

// A linear layer that makes logits of what it reads: rows times weight, plus bias.
struct Head {
  at::Tensor weight = {};  // [classes, width]
  at::Tensor bias = {};    // [classes]
};

// Logits of some rows, or what makes them.
struct LogitRows {
  // [rows, classes]; with a head [rows, width], what it reads.
  at::Tensor rows;
  Head head = {};

  int64_t classes() const { return head.weight.defined() ? head.weight.size(0) : rows.size(1); }
  // Logits [count, classes] of rows [first, first + count).
  at::Tensor Chunk(int64_t first, int64_t count) const;
};

// The sum over the rows [first, first + count) whose logits [count, classes] are given, scalar.
using RowLoss = std::function<at::Tensor(const at::Tensor& logits, int64_t first, int64_t count)>;

// The loss of all rows, with the gradient's graph to `logits`. More rows than one chunk has are taken chunk by chunk,
// and each chunk's gradient is computed at once and kept in place of what the loss would hold until the backward pass:
// then of [rows, classes] there is one gradient, and with a head nothing, only the gradients of its rows, weight and
// bias. (As in Hsu et al. 2024, "Liger Kernel", arXiv:2410.10989, section 3.2.) The gradient of a gradient is not to be
// had then.
at::Tensor SumOverRows(const LogitRows& logits, const RowLoss& loss);

}  // namespace polystill::losses
