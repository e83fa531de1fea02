#pragma once

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace polystill::soft_labels {

// Bytes that lie in several places, in their order; others own them.
using ByteChunks = std::vector<std::string_view>;

inline size_t BytesOf(std::span<const std::string_view> chunks) {
  size_t bytes = 0;
  for (const std::string_view chunk : chunks) bytes += chunk.size();
  return bytes;
}

// Copies what chunks hold, from the first byte on. Not thread-safe.
class ByteChunkReader {
 public:
  // `chunks` outlive it.
  explicit ByteChunkReader(std::span<const std::string_view> chunks) : left_(chunks) {}

  // The next `bytes` bytes, of which there are as many.
  void Read(void* to, size_t bytes) {
    auto* next = static_cast<char*>(to);
    while (bytes > 0) {
      while (chunk_.empty()) {
        chunk_ = left_.front();
        left_ = left_.subspan(1);
      }
      const size_t some = std::min(bytes, chunk_.size());
      std::memcpy(next, chunk_.data(), some);
      chunk_.remove_prefix(some);
      next += some;
      bytes -= some;
    }
  }

 private:
  std::span<const std::string_view> left_;
  std::string_view chunk_;
};

}  // namespace polystill::soft_labels
