#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace polystill::corpus {

// What BERT does to a text before its pieces are looked up, character for character as the library HuggingFace
// `tokenizers` 0.23 does it: that one takes each property from a Unicode of its own age (general categories from 8.0,
// decompositions from 9.0, lower case from 17.0), which ICU's newer tables are narrowed to here.

// UTF-8 to characters; what is no UTF-8 becomes U+FFFD.
std::u32string Characters(std::string_view utf8);
std::string Utf8Of(std::u32string_view characters);

// White_Space of Unicode.
bool IsWhitespace(char32_t c);
// \w of Unicode: alphabetic, a mark, a decimal digit, connecting punctuation or a joiner.
bool IsOfWord(char32_t c);

// BertNormalizer.
struct BertNormalizer {
  // Control characters, U+0000 and U+FFFD are left out; every white space becomes ' '.
  bool clean_text = false;
  // CJK ideographs get a space on either side.
  bool handle_chinese_chars = false;
  // Canonically decomposed, without nonspacing marks.
  bool strip_accents = false;
  // Each character by itself: a final sigma is one like any other.
  bool lowercase = false;

  std::u32string Normalize(std::u32string_view text) const;
};

// BertPreTokenizer: what white space separates, each mark of punctuation by itself. They point into `text`.
std::vector<std::u32string_view> SplitWords(std::u32string_view text);

}  // namespace polystill::corpus
