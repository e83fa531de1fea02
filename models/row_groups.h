#pragma once

#include <c10/core/DeviceType.h>

#include <cstdint>
#include <vector>

namespace polystill::models {

// Which rows go through a forward together: their places, group after group; each row is in one group. Pure functions
// of the rows' lengths, in tokens.
using RowGroups = std::vector<std::vector<int64_t>>;

// In their order, `rows` at a time.
RowGroups GroupByRows(const std::vector<int64_t>& lengths, int64_t rows);

// Rows of one LengthBucket, RowsPerForward at a time.
RowGroups GroupByBucket(const std::vector<int64_t>& lengths, c10::DeviceType device);

// Rows of at most TokensPerForward tokens together, of one TokensPerForward, at most kRowsPerForward of them: longest
// first, each into the first group that has room (first-fit decreasing; Johnson 1973).
RowGroups GroupByTokens(const std::vector<int64_t>& lengths, c10::DeviceType device);

// Rows of similar lengths, as if a group is padded to its longest and costs as much as 64 tokens beside: the groups
// that cost least.
RowGroups GroupByCost(const std::vector<int64_t>& lengths);

// Tokens that a forward is filled up to which has rows of `length` tokens: few on a CPU, whose one thread is not much
// faster with more; for a row that is longer the next power of two.
int64_t TokensPerForward(int64_t length, c10::DeviceType device);

// Rows that a forward is filled up to whose rows are padded to `length` tokens: at least 2, since a model that
// AOTInductor compiled for any number of rows does not take one.
int64_t RowsPerForward(int64_t length, c10::DeviceType device);

// The length that rows of `length` tokens are padded to: the next multiple of 8 up to 64, beyond it the next of eight
// lengths between two powers of two.
int64_t LengthBucket(int64_t length);

// The same in training: the next multiple of 8.
int64_t TrainingLength(int64_t length);

}  // namespace polystill::models
