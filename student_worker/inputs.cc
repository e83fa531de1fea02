#include "student_worker/inputs.h"

#include "runtime/counter_rng.h"
#include "runtime/utf8.h"
#include "soft_labels/client.h"

namespace polystill::student_worker {
namespace {

// Bytes of an entry beside its ids: list and hash nodes, the vector itself.
constexpr int64_t kEntryOverhead = 128;

}  // namespace

std::vector<int32_t> TokenIdsOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer) {
  const bool source = side == v1::SIDE_SOURCE_TEXT;
  if (tokenizer == nullptr) return source ? record.source_ids : record.ids;
  return tokenizer->Encode(source ? record.source_text : record.text);
}

v1::LabelInput LabelInputOf(const corpus::Record& record, v1::Side side, v1::Signature::Input input) {
  const bool source = side == v1::SIDE_SOURCE_TEXT;
  v1::LabelInput asked;
  asked.set_id(record.id);
  if (input == v1::Signature::INPUT_IDS) {
    const std::vector<int32_t>& ids = source ? record.source_ids : record.ids;
    asked.mutable_ids()->mutable_ids()->Add(ids.begin(), ids.end());
  } else {
    asked.set_text(std::string(Utf8Prefix(source ? record.source_text : record.text, soft_labels::kMaxTextBytes)));
  }
  return asked;
}

size_t TokenMemo::Hash::operator()(const Key& key) const {
  return CombineKey(static_cast<uint64_t>(key.language), static_cast<uint64_t>(key.block),
                    static_cast<uint64_t>(key.row));
}

int64_t TokenMemo::BytesOf(const Entry& entry) {
  return kEntryOverhead + static_cast<int64_t>(entry.second.capacity() * sizeof(int32_t));
}

const std::vector<int32_t>* TokenMemo::Find(const corpus::RecordRef& ref) {
  const auto place = places_.find(KeyOf(ref));
  if (place == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, place->second);
  return &place->second->second;
}

void TokenMemo::Put(const corpus::RecordRef& ref, std::vector<int32_t> ids) {
  const Key key = KeyOf(ref);
  if (places_.contains(key)) return;
  entries_.emplace_front(key, std::move(ids));
  places_[key] = entries_.begin();
  bytes_ += BytesOf(entries_.front());
  while (bytes_ > max_bytes_ && !entries_.empty()) {
    bytes_ -= BytesOf(entries_.back());
    places_.erase(entries_.back().first);
    entries_.pop_back();
  }
}

}  // namespace polystill::student_worker
