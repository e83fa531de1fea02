#include "models/dropout.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/counter_rng.h"

namespace polystill::models {
namespace {

// Elements decided by one 64-bit draw, by 16 bits each: a draw costs more than all else here.
constexpr int64_t kPerDraw = 4;
constexpr int kBits = 16;
constexpr uint32_t kRange = 1 << kBits;

// Draws of one block: few enough for the cache, and a count that the compiler knows and vectorises.
constexpr int64_t kDraws = 64;
constexpr int64_t kBlock = kDraws * kPerDraw;

// Mixing the sum of a key and a counter is SplitMix64 with a stride of one.
template <typename T>
void FillBlock(uint64_t key, uint32_t dropped, T kept, T* out) {
  std::array<uint16_t, kBlock> lots;
  for (int64_t i = 0; i < kDraws; ++i) {
    const uint64_t draw = Mix64(key + i);
    for (int64_t j = 0; j < kPerDraw; ++j) lots[i * kPerDraw + j] = static_cast<uint16_t>(draw >> (kBits * j));
  }
  for (int64_t i = 0; i < kBlock; ++i) out[i] = kept * static_cast<T>(lots[i] >= dropped);
}

template <typename T>
void FillRow(uint64_t key, uint32_t dropped, T kept, int64_t count, T* out) {
  for (; count >= kBlock; count -= kBlock, out += kBlock, key += kDraws) FillBlock(key, dropped, kept, out);
  std::array<T, kBlock> rest;
  if (count > 0) FillBlock(key, dropped, kept, rest.data());
  std::copy_n(rest.begin(), count, out);
}

}  // namespace

at::Tensor DropoutMask(const std::vector<uint64_t>& row_keys, const std::vector<int64_t>& offsets, int64_t width,
                       double rate, uint64_t site, at::ScalarType dtype) {
  const auto dropped = static_cast<uint32_t>(std::lround(rate * kRange));
  const double kept = static_cast<double>(kRange) / (kRange - dropped);
  at::Tensor mask = at::empty({offsets.back(), width}, at::TensorOptions(dtype));
  AT_DISPATCH_FLOATING_TYPES(dtype, "DropoutMask", [&] {
    auto* out = mask.mutable_data_ptr<scalar_t>();
    for (size_t row = 0; row < row_keys.size(); ++row) {
      const int64_t count = (offsets[row + 1] - offsets[row]) * width;
      FillRow(CombineKey(row_keys[row], site), dropped, static_cast<scalar_t>(kept), count, out);
      out += count;
    }
  });
  return mask;
}

}  // namespace polystill::models
