#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "corpus/record.h"

namespace polystill::corpus {

// Decoded blocks by (language, block), at most `capacity` bytes of them, or the newest alone where it is larger. The
// least recently used goes first. Not thread-safe.
class BlockCache {
 public:
  using Key = std::pair<int, int>;
  using Records = std::shared_ptr<const std::vector<Record>>;

  explicit BlockCache(int64_t capacity) : capacity_(capacity) {}

  // Null when it is not held.
  Records Get(Key key);
  void Put(Key key, Records records);

  int64_t bytes() const { return bytes_; }

 private:
  struct Entry {
    Key key;
    Records records;
    int64_t bytes = 0;
  };

  const int64_t capacity_;
  int64_t bytes_ = 0;
  // The most recently used first.
  std::list<Entry> entries_;
  std::map<Key, std::list<Entry>::iterator> by_key_;
};

}  // namespace polystill::corpus
