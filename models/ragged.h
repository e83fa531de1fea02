#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace polystill::models {

// The rows of a batch, padded to LengthBucket of the longest: how a GPU attends to all of them at once. Runs on any
// device. Immutable, hence safe to share.
class PaddedRows {
 public:
  // As RaggedRows'. Three tensors of at most rows * LengthBucket elements go to `device`.
  PaddedRows(const std::vector<int64_t>& offsets, at::Device device);

  // As RaggedRows::Attention.
  at::Tensor Attention(const at::Tensor& qkv) const;

 private:
  const int64_t rows_;
  const int64_t length_;
  at::Tensor sources_;   // [rows * length]: the token of each place; 0 of padding
  at::Tensor places_;    // [tokens of all rows]: the place of each token
  at::Tensor attended_;  // [rows, 1, 1, length]: whether a place is attended to
};

// What a transformer does with rows of tokens that lie one behind the other, without padding: row i is
// [offsets[i], offsets[i + 1]) of the first dimension. Tokens behind the last row belong to none. Made once for all
// layers of a forward. Gradients flow. A row's bits are its own: on a CPU they depend on nothing but the row, on a GPU
// on LengthBucket of the longest row and on the number of rows and tokens. Immutable, hence safe to share.
class RaggedRows {
 public:
  // `offsets`: from 0, never falling. `device`: of the tensors that the methods are given.
  RaggedRows(std::vector<int64_t> offsets, at::Device device);

  // Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2) of each row within itself.
  // `qkv` [tokens, 3, heads, head width]: queries, keys, values, of one floating type. Gives [tokens, heads * head
  // width], 0 where a token belongs to no row.
  at::Tensor Attention(const at::Tensor& qkv) const;

  // The mean over each row's tokens, [rows, width] of x [tokens, width]; 0 of a row without tokens.
  at::Tensor Mean(const at::Tensor& x) const;

  // For each of `tokens` tokens its place in its row, int64, on the CPU; 0 where it belongs to none.
  at::Tensor Places(int64_t tokens) const;

  const std::vector<int64_t>& offsets() const { return offsets_; }

 private:
  const std::vector<int64_t> offsets_;
  const at::Tensor lengths_;          // [rows], on the device
  std::optional<PaddedRows> padded_;  // unless the device is a CPU
};

}  // namespace polystill::models
