#include "corpus/block_cache.h"

namespace polystill::corpus {
namespace {

// What a string holds outside of itself.
int64_t HeapBytes(const std::string& text) {
  return text.capacity() > std::string().capacity() ? static_cast<int64_t>(text.capacity()) + 1 : 0;
}

int64_t HeapBytes(const std::vector<std::string>& words) {
  int64_t bytes = static_cast<int64_t>(words.capacity() * sizeof(std::string));
  for (const std::string& word : words) bytes += HeapBytes(word);
  return bytes;
}

int64_t BytesOf(const std::vector<Record>& records) {
  int64_t bytes = static_cast<int64_t>(records.capacity() * sizeof(Record));
  for (const Record& record : records) {
    bytes += HeapBytes(record.id) + HeapBytes(record.language) + HeapBytes(record.text) +
             HeapBytes(record.source_text) + HeapBytes(record.group);
    bytes += HeapBytes(record.words) + HeapBytes(record.source_words);
    bytes += static_cast<int64_t>((record.ids.capacity() + record.source_ids.capacity()) * sizeof(int32_t) +
                                  record.labels.capacity() * sizeof(int));
  }
  return bytes;
}

}  // namespace

BlockCache::Records BlockCache::Get(Key key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return found->second->records;
}

void BlockCache::Put(Key key, Records records) {
  if (const auto old = by_key_.find(key); old != by_key_.end()) {
    bytes_ -= old->second->bytes;
    entries_.erase(old->second);
    by_key_.erase(old);
  }
  const int64_t bytes = BytesOf(*records);
  entries_.push_front({key, std::move(records), bytes});
  by_key_[key] = entries_.begin();
  bytes_ += bytes;
  while (bytes_ > capacity_ && entries_.size() > 1) {
    bytes_ -= entries_.back().bytes;
    by_key_.erase(entries_.back().key);
    entries_.pop_back();
  }
}

}  // namespace polystill::corpus
