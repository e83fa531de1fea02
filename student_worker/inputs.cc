#include "student_worker/inputs.h"

#include <algorithm>

#include "runtime/counter_rng.h"

namespace polystill::student_worker {
namespace {

// Bytes of an entry beside its ids: list and hash nodes, the vector itself.
constexpr int64_t kEntryOverhead = 128;

}  // namespace

std::vector<int32_t> TokenIdsOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer) {
  return TokensOf(record, side, tokenizer).ids;
}

Tokens TokensOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer) {
  const bool source = side == v1::SIDE_SOURCE_TEXT;
  if (tokenizer == nullptr) return {source ? record.source_ids : record.ids, {}};
  const std::vector<std::string>& words = source ? record.source_words : record.words;
  if (!words.empty()) return tokenizer->EncodeWords(words);
  return {tokenizer->Encode(source ? record.source_text : record.text), {}};
}

std::vector<int64_t> GoldOf(v1::Task task, const corpus::Record& record) {
  if (task == v1::TASK_MULTI_LABEL) return {record.labels.begin(), record.labels.end()};
  return {record.label};
}

JudgedTokens JudgedTokensOf(const corpus::Record& record, const Tokens& tokens, size_t words) {
  const bool by_words = !tokens.firsts.empty();
  const size_t fitting = std::min(words, by_words ? tokens.firsts.size() : tokens.ids.size());
  const size_t all = by_words ? std::max(record.words.size(), record.source_words.size()) : tokens.ids.size();
  JudgedTokens judged;
  for (size_t i = 0; i < std::max(all, record.labels.size()); ++i) {
    const int label = record.labels.empty() ? -1 : record.labels[i];
    if (label < 0 && !record.labels.empty()) continue;
    if (i >= fitting) {
      ++judged.cut;
      continue;
    }
    judged.positions.push_back(by_words ? tokens.firsts[i] : static_cast<int32_t>(i));
    judged.words.push_back(static_cast<int32_t>(i));
    judged.gold.push_back(label);
  }
  return judged;
}

size_t TokenMemo::Hash::operator()(const Key& key) const {
  return CombineKey(static_cast<uint64_t>(key.language), static_cast<uint64_t>(key.block),
                    static_cast<uint64_t>(key.row));
}

int64_t TokenMemo::BytesOf(const Entry& entry) {
  const Tokens& tokens = entry.second;
  return kEntryOverhead + static_cast<int64_t>((tokens.ids.capacity() + tokens.firsts.capacity()) * sizeof(int32_t));
}

const Tokens* TokenMemo::Find(const corpus::RecordRef& ref) {
  const auto place = places_.find(KeyOf(ref));
  if (place == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place->second);
  return &place->second->second;
}

void TokenMemo::Put(const corpus::RecordRef& ref, Tokens tokens) {
  const Key key = KeyOf(ref);
  if (places_.contains(key)) return;
  entries_.emplace_front(key, std::move(tokens));
  places_[key] = entries_.begin();
  bytes_ += BytesOf(entries_.front());
  while (bytes_ > max_bytes_ && !entries_.empty()) {
    bytes_ -= BytesOf(entries_.back());
    places_.erase(entries_.back().first);
    entries_.pop_back();
  }
}

}  // namespace polystill::student_worker
