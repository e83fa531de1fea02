#pragma once

#include <cmath>
#include <cstdint>

#include "runtime/counter_rng.h"

namespace polystill::corpus {

// Uniform in [0, bound): the high word of a 64 x 64 bit product (Lemire 2019). Its bias is below bound / 2^64.
constexpr uint64_t Below(uint64_t bits, uint64_t bound) {
  return static_cast<uint64_t>((static_cast<unsigned __int128>(bits) * bound) >> 64);
}

// A permutation of [0, size), chosen by `key`, that costs O(1) for a position and holds nothing.
//
// A Feistel network over the pairs (left, right) of [0, a) x [0, b), a and b about sqrt(size), whose rounds add modulo
// a and b; what falls outside [0, size) walks on (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
// Since a * b is hardly above size, walking is rare.
class Permutation {
 public:
  // size: at least 1 and below 2^62.
  Permutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
    rows_ = static_cast<uint64_t>(std::sqrt(static_cast<double>(size)));
    while (rows_ * rows_ < size) ++rows_;
    while ((rows_ - 1) * (rows_ - 1) >= size) --rows_;
    columns_ = (size + rows_ - 1) / rows_;
  }

  uint64_t operator()(uint64_t position) const {
    do {
      position = Encrypt(position);
    } while (position >= size_);
    return position;
  }

 private:
  static constexpr uint64_t kRounds = 4;  // of two halves each

  uint64_t Encrypt(uint64_t position) const {
    uint64_t left = position / columns_;
    uint64_t right = position % columns_;
    for (uint64_t round = 0; round < kRounds; ++round) {
      left = Add(left, Below(Mix64(key_ ^ Mix64(right + (2 * round << 32))), rows_), rows_);
      right = Add(right, Below(Mix64(key_ ^ Mix64(left + ((2 * round + 1) << 32))), columns_), columns_);
    }
    return left * columns_ + right;
  }

  static uint64_t Add(uint64_t a, uint64_t b, uint64_t modulus) { return a + b < modulus ? a + b : a + b - modulus; }

  uint64_t size_;
  uint64_t key_;
  uint64_t rows_ = 1;
  uint64_t columns_ = 1;
};

}  // namespace polystill::corpus
