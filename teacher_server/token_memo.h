#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "runtime/mutex.h"
#include "teacher_server/backend.h"

namespace polystill::teacher_server {

// Remembers the token ids of the texts asked for last, up to a number of bytes: a training run asks for the same text
// in every epoch, and tokenising costs more than a small model's forward. Thread-safe if `encode` is.
class TokenMemo {
 public:
  // `max_bytes`: 0 remembers nothing.
  TokenMemo(Encode encode, int64_t max_bytes);

  std::vector<int32_t> Ids(std::string_view text);

  int64_t bytes() const;

 private:
  struct Entry {
    std::string text;
    std::vector<int32_t> ids;
  };
  static int64_t BytesOf(const Entry& entry);

  const Encode encode_;
  const int64_t max_bytes_;
  mutable Mutex mutex_;
  // The last used first.
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  // Keys lie in entries_.
  std::unordered_map<std::string_view, std::list<Entry>::iterator> by_text_ ABSL_GUARDED_BY(mutex_);
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace polystill::teacher_server
