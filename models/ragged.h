#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace polystill::models {

// What a transformer does with rows of tokens that lie one behind the other, without padding: row i is
// [offsets[i], offsets[i + 1]) of the first dimension. Tokens behind the last row belong to none. Gradients flow. A
// row's bits are its own: on a CPU they depend on nothing but the row, on a GPU on LengthBucket of the longest row and
// on the number of rows and tokens.

// Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762, section 3.2) of each row within itself.
// `qkv` [tokens, 3, heads, head width]: queries, keys, values, of one floating type. Gives [tokens, heads * head
// width], 0 where a token belongs to no row.
at::Tensor RaggedAttention(const at::Tensor& qkv, const std::vector<int64_t>& offsets);

// The mean over each row's tokens, [rows, width] of x [tokens, width]; 0 of a row without tokens.
at::Tensor RaggedMean(const at::Tensor& x, const std::vector<int64_t>& offsets);

// For each of `tokens` tokens its place in its row, int64, on the CPU; 0 where it belongs to none.
at::Tensor PlacesInRows(const std::vector<int64_t>& offsets, int64_t tokens);

}  // namespace polystill::models
