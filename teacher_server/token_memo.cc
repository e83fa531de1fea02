#include "teacher_server/token_memo.h"

#include <utility>

namespace polystill::teacher_server {

TokenMemo::TokenMemo(Encode encode, int64_t max_bytes) : encode_(std::move(encode)), max_bytes_(max_bytes) {}

int64_t TokenMemo::BytesOf(const Entry& entry) {
  constexpr int64_t kNodes = 160;  // a list node, a hash node and the allocator's share, about
  return kNodes + entry.text.size() + entry.ids.size() * sizeof(int32_t);
}

int64_t TokenMemo::bytes() const {
  MutexLock lock(&mutex_);
  return bytes_;
}

std::vector<int32_t> TokenMemo::Ids(std::string_view text) {
  {
    MutexLock lock(&mutex_);
    if (const auto found = by_text_.find(text); found != by_text_.end()) {
      entries_.splice(entries_.begin(), entries_, found->second);
      return found->second->ids;
    }
  }
  Entry entry{std::string(text), encode_(text)};  // others go on meanwhile
  const int64_t bytes = BytesOf(entry);
  if (bytes > max_bytes_) return std::move(entry.ids);
  MutexLock lock(&mutex_);
  if (by_text_.contains(text)) return std::move(entry.ids);  // another thread's was sooner
  for (bytes_ += bytes; bytes_ > max_bytes_; entries_.pop_back()) {
    bytes_ -= BytesOf(entries_.back());
    by_text_.erase(entries_.back().text);
  }
  entries_.push_front(std::move(entry));
  by_text_[entries_.front().text] = entries_.begin();
  return entries_.front().ids;
}

}  // namespace polystill::teacher_server
