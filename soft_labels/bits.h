#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace polystill::soft_labels {

// Bits in bytes, the lowest of a byte first, numbers with their lowest bit first; a writer ends with zeros to the byte.
// The codes that FORMAT.md names:
//
//   Rice with parameter r:        x >> r in unary (that many ones, then a zero), then the low r bits of x
//   exp-Golomb with parameter m:  y = x + 2^m of n + 1 bits: n - m in unary, then the low n bits of y
//
// Rice: Rice 1979, "Some practical universal noiseless coding techniques". Exp-Golomb: Teuhola 1978, "A compression
// method for clustered bit-vectors".

inline int64_t RiceBits(uint64_t x, int r) { return static_cast<int64_t>(x >> r) + 1 + r; }

inline int64_t ExpGolombBits(uint64_t x, int m) {
  return 2 * static_cast<int64_t>(std::bit_width(x + (1ull << m))) - m - 1;
}

class BitWriter {
 public:
  // Appends to `bytes`.
  explicit BitWriter(std::string* bytes) : bytes_(bytes) {}

  // The low `count` bits of `value`, at most 32; the others are 0.
  void Write(uint64_t value, int count) {
    held_ |= value << holds_;
    holds_ += count;
    for (; holds_ >= 8; holds_ -= 8, held_ >>= 8) bytes_->push_back(static_cast<char>(held_ & 0xff));
  }
  void WriteUnary(uint64_t ones) {
    for (; ones >= 32; ones -= 32) Write(0xffffffffu, 32);
    Write((1ull << ones) - 1, static_cast<int>(ones) + 1);
  }
  void WriteRice(uint64_t x, int r) {
    WriteUnary(x >> r);
    Write(x & ((1ull << r) - 1), r);
  }
  void WriteExpGolomb(uint64_t x, int m) {
    const uint64_t y = x + (1ull << m);
    const int n = std::bit_width(y) - 1;
    WriteUnary(n - m);
    Write(y & ((1ull << n) - 1), n);
  }
  void End() {
    if (holds_ > 0) Write(0, 8 - holds_);
  }

 private:
  std::string* const bytes_;
  uint64_t held_ = 0;
  int holds_ = 0;
};

// Reading beyond the end gives zeros and is remembered.
class BitReader {
 public:
  explicit BitReader(std::string_view bytes) : bytes_(bytes) {}

  // `count`: at most 32.
  uint64_t Read(int count) {
    Refill();
    if (holds_ < count) {
      overrun_ = true;
      holds_ = count;
    }
    return Take(count);
  }
  // Ones before a zero; `most` when there are as many or more, whether or not the zero is there.
  uint64_t ReadUnary(uint64_t most) {
    for (uint64_t ones = 0; ones < most;) {
      Refill();
      const int run = std::countr_one(held_);
      if (run < holds_) {
        Take(run + 1);
        return std::min(ones + static_cast<uint64_t>(run), most);
      }
      if (holds_ == 0) {
        overrun_ = true;
        return most;
      }
      ones += static_cast<uint64_t>(holds_);
      Take(holds_);
    }
    return most;
  }
  // At most about `most`: a larger number comes back as one that is too large.
  uint64_t ReadRice(int r, uint64_t most) {
    const uint64_t quotient = ReadUnary((most >> r) + 1);
    return quotient << r | Read(r);
  }
  uint64_t ReadExpGolomb(int m) {
    const int n = m + static_cast<int>(ReadUnary(static_cast<uint64_t>(32 - m)));
    return (1ull << n | Read(n)) - (1ull << m);
  }

  bool overrun() const { return overrun_; }
  // Whether nothing is left but zeros that fill up the last byte.
  bool AtEnd() const { return !overrun_ && next_ == bytes_.size() && holds_ < 8 && held_ == 0; }

 private:
  void Refill() {
    for (; holds_ <= 55 && next_ < bytes_.size(); holds_ += 8) {
      held_ |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[next_++])) << holds_;
    }
  }
  // `count` at most 63.
  uint64_t Take(int count) {
    const uint64_t value = held_ & ((uint64_t{1} << count) - 1);
    held_ >>= count;
    holds_ -= count;
    return value;
  }

  const std::string_view bytes_;
  size_t next_ = 0;
  uint64_t held_ = 0;  // bits from holds_ on are 0
  int holds_ = 0;
  bool overrun_ = false;
};

}  // namespace polystill::soft_labels
