#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "corpus/added_tokens.h"
#include "corpus/bert_text.h"
#include "corpus/subword_model.h"

namespace polystill::corpus {

// What a WordPiece tokeniser is made of; tokenizer_json.h reads it from a file.
struct WordPieceParts {
  // Ids of the pieces, each in [0, 2^24); those within a word begin with `continuing_subword_prefix`.
  std::map<std::string, int32_t> vocabulary;
  // Of the vocabulary.
  std::string unk_token;
  std::string continuing_subword_prefix;
  // Longer words, in characters, are unknown.
  int64_t max_input_chars_per_word = 0;
  BertNormalizer normalizer;
  // In the file's order; special ones first, none with an empty content, normalised or not.
  std::vector<AddedToken> added_tokens;
};

// BERT's WordPiece (Devlin et al. 2019, arXiv:1810.04805; Schuster and Nakajima 2012): added tokens are found in the
// text, what is between them is normalised and split into words, and each word is cut from its front into the longest
// pieces that the vocabulary has; one that it cannot be cut into is unknown as a whole. Equal, id by id, to HuggingFace
// `tokenizers` (tests/test_wordpiece.py). Thread-safe.
class WordPieceModel final : public SubwordModel {
 public:
  explicit WordPieceModel(WordPieceParts parts);

  std::vector<int> Encode(std::string_view text) const override;
  // The largest id, and one.
  int vocab_size() const override { return vocab_size_; }
  int unknown_id() const override { return unknown_id_; }
  int IdOf(std::string_view piece) const override;
  std::string PieceOf(int id) const override;

 private:
  // Lets a std::string_view be looked up.
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  using Vocabulary = std::unordered_map<std::string, int32_t, Hash, std::equal_to<>>;

  void EncodeWord(std::u32string_view word, std::vector<int>* ids) const;

  // Pieces that a word begins with, and those that go on, without their prefix.
  Vocabulary begins_;
  Vocabulary continues_;
  // By id; a file may leave out most ids below its largest.
  std::unordered_map<int32_t, std::string> pieces_;
  int32_t vocab_size_ = 0;
  int32_t unknown_id_ = 0;
  // In bytes.
  size_t longest_piece_ = 0;
  size_t max_input_chars_per_word_;
  BertNormalizer normalizer_;
  // Looked for in the text as it came, and in the normalised one.
  AddedTokens verbatim_;
  AddedTokens normalized_;
};

}  // namespace polystill::corpus
