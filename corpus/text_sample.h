#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace polystill::corpus {

// A uniform sample of the distinct texts that are added: those whose hash, keyed by the seed, is smallest. Depends on
// the texts and the seed alone, not on their order, and holds no more than it returns.
class TextSample {
 public:
  // At most `size` texts, each cut to `max_bytes` at a character's start.
  TextSample(int64_t size, int64_t max_bytes, uint64_t seed) : size_(size), max_bytes_(max_bytes), seed_(seed) {}

  // UTF-8. A text of white space alone is left out.
  void Add(std::string_view text);

  int64_t size() const { return static_cast<int64_t>(texts_.size()); }
  // The sample, in the order of the hashes. Empties it.
  std::vector<std::string> Take();

 private:
  const int64_t size_;
  const int64_t max_bytes_;
  const uint64_t seed_;
  std::map<uint64_t, std::string> texts_;
};

}  // namespace polystill::corpus
