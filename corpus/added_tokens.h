#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "corpus/bert_text.h"

namespace polystill::corpus {

// A token that is found in a text as it stands, such as [MASK]: an entry of `added_tokens` in a tokenizer.json.
struct AddedToken {
  int32_t id = 0;
  std::u32string content;
  // Not within a word.
  bool single_word = false;
  // Takes the white space before it, or after it, with it.
  bool lstrip = false;
  bool rstrip = false;
  // Looked for in the normalised text, normalised itself.
  bool normalized = false;
};

// Added tokens that are looked for together. Thread-safe.
class AddedTokens {
 public:
  // A part of a text: a token's, or text between tokens (id -1).
  struct Part {
    std::u32string_view text;
    int32_t id = -1;
  };

  AddedTokens() = default;
  // None has an empty content. Of two with the same content the first counts.
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // The parts of `text`, in their order, none empty: from the left, of the tokens that begin at a place the longest.
  std::vector<Part> Split(std::u32string_view text) const;

 private:
  const AddedToken* LongestAt(std::u32string_view text, size_t place) const;

  // By the first character, longest first.
  std::map<char32_t, std::vector<AddedToken>> tokens_;
};

}  // namespace polystill::corpus
