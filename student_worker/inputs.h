#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/plan.h"
#include "corpus/record.h"
#include "corpus/tokenizer.h"
#include "polystill/v1/run.pb.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::student_worker {

// The token ids that a model reads of a record: one side of it, tokenised, or as the corpus gives them when `tokenizer`
// is null.
std::vector<int32_t> TokenIdsOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer);

// What a teacher is asked about a record: one side of it, as text (cut to what servers take) or token ids.
v1::LabelInput LabelInputOf(const corpus::Record& record, v1::Side side, v1::Signature::Input input);

// Remembers the token ids of records, since each comes again in every pass: at most `max_bytes`, the least recently
// used go first. Not thread-safe.
class TokenMemo {
 public:
  explicit TokenMemo(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Null when it is not remembered; valid until the next Put.
  const std::vector<int32_t>* Find(const corpus::RecordRef& ref);
  void Put(const corpus::RecordRef& ref, std::vector<int32_t> ids);
  int64_t bytes() const { return bytes_; }

 private:
  // Place of a record in the corpus, whatever the pass.
  struct Key {
    int language;
    int block;
    int64_t row;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };
  using Entry = std::pair<Key, std::vector<int32_t>>;

  static Key KeyOf(const corpus::RecordRef& ref) { return {ref.language, ref.block, ref.row}; }
  static int64_t BytesOf(const Entry& entry);

  const int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, Hash> places_;
};

}  // namespace polystill::student_worker
