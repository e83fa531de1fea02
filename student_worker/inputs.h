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

namespace polystill::student_worker {

// The token ids that a model reads of a record: one side of it, tokenised, or as the corpus gives them when `tokenizer`
// is null.
std::vector<int32_t> TokenIdsOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer);

// The same with where its words begin, of a record that is a list of words; no such places of any other.
using Tokens = corpus::Tokenizer::Words;
Tokens TokensOf(const corpus::Record& record, v1::Side side, const corpus::Tokenizer* tokenizer);

// Gold labels of a record as losses take them (losses/weighted.h), tasks that judge tokens aside: its class, -1 without
// one; task multi_label: 0 or 1 for each label, nothing when labels are not read.
std::vector<int64_t> GoldOf(v1::Task task, const corpus::Record& record);

// Tasks that judge tokens: which of a record's tokens are judged. Every word at its first token, every token id by
// itself, but for those that have no label where labels are read.
struct JudgedTokens {
  // Places among the record's tokens, ascending.
  std::vector<int32_t> positions;
  // Which word (or token id) of the record each of them is.
  std::vector<int32_t> words;
  // Its class; -1 where labels are not read.
  std::vector<int64_t> gold;
  // Words (or labelled token ids) that would be judged but for tokenizer.max_length.
  int64_t cut = 0;
};

// `words`: only so many of the record's words; as many as fit when it is left out.
JudgedTokens JudgedTokensOf(const corpus::Record& record, const Tokens& tokens, size_t words = SIZE_MAX);

// Remembers the tokens of records, since each comes again in every pass: at most `max_bytes`, the least recently
// used go first. Not thread-safe.
class TokenMemo {
 public:
  explicit TokenMemo(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Null when it is not remembered; valid until the next Put.
  const Tokens* Find(const corpus::RecordRef& ref);
  void Put(const corpus::RecordRef& ref, Tokens tokens);
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
  using Entry = std::pair<Key, Tokens>;

  static Key KeyOf(const corpus::RecordRef& ref) { return {ref.language, ref.block, ref.row}; }
  static int64_t BytesOf(const Entry& entry);

  const int64_t max_bytes_;
  int64_t bytes_ = 0;
  std::list<Entry> entries_;  // most recently used first
  std::unordered_map<Key, std::list<Entry>::iterator, Hash> places_;
};

}  // namespace polystill::student_worker
