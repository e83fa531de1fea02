#include "corpus/bert_text.h"

#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>

#include <algorithm>
#include <utility>

namespace polystill::corpus {
namespace {

// Characters of Unicode 8.0, the age of the general categories that the reference knows.
constexpr int kCategoriesOf = 8;

bool HasCategory(char32_t c, uint32_t mask) {
  if ((U_GET_GC_MASK(static_cast<UChar32>(c)) & mask) == 0) return false;
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= kCategoriesOf;
}

// Category Mn, with the five characters that have changed to or from it since.
bool IsNonspacingMark(char32_t c) {
  switch (c) {
    case 0x1734:
      return true;
    case 0x1885:
    case 0x1886:
    case 0xA9BD:
    case 0x111C9:
      return false;
    default:
      return HasCategory(c, U_GC_MN_MASK);
  }
}

bool IsAsciiPunctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) || (c >= 0x7B && c <= 0x7E);
}

// Categories P*, with the two characters that are no longer of them.
bool IsPunctuation(char32_t c) {
  if (c < 0x80) return IsAsciiPunctuation(c);
  return c == 0x166D || c == 0x111C9 || HasCategory(c, U_GC_P_MASK);
}

bool IsControl(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  return HasCategory(c, U_GC_CC_MASK | U_GC_CF_MASK) || u_charType(static_cast<UChar32>(c)) == U_PRIVATE_USE_CHAR;
}

// The blocks that BERT calls Chinese; the one from 2B820 is not whole in it.
bool IsIdeograph(char32_t c) {
  constexpr std::pair<char32_t, char32_t> kBlocks[] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0xF900, 0xFAFF},
                                                       {0x20000, 0x2A6DF}, {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF},
                                                       {0x2F800, 0x2FA1F}};
  return std::any_of(std::begin(kBlocks), std::end(kBlocks),
                     [c](const auto& block) { return c >= block.first && c <= block.second; });
}

// Capital letters of Unicode 16.0 and 17.0, which are newer than ICU 72: [first, last] and that of the first's small
// letter, from which the others count.
struct NewCapitals {
  char32_t first, last, small;
};
constexpr NewCapitals kNewCapitals[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},     {0xA7CC, 0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CE, 0xA7CF},
    {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},    {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x19B},
    {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB},
};

void AppendLower(char32_t c, std::u32string* text) {
  if (c == 0x130) {  // the only one that has two
    *text += {0x69, 0x307};
    return;
  }
  for (const NewCapitals& capitals : kNewCapitals) {
    if (c >= capitals.first && c <= capitals.last) {
      text->push_back(capitals.small + (c - capitals.first));
      return;
    }
  }
  text->push_back(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
}

std::u32string FromIcu(const icu::UnicodeString& text) {
  std::u32string characters;
  for (int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1)) {
    characters.push_back(static_cast<char32_t>(text.char32At(i)));
  }
  return characters;
}

// Canonical decomposition, as Unicode 9.0 has it; newer characters stay where they are.
std::u32string Decompose(const std::u32string& text) {
  struct Decomposition {
    Decomposition()
        : known(icu::UnicodeString("[:age=9.0:]"), error), nfd(*icu::Normalizer2::getNFDInstance(error), known) {}
    UErrorCode error = U_ZERO_ERROR;  // first: the others are made with it
    const icu::UnicodeSet known;
    const icu::FilteredNormalizer2 nfd;
  };
  static const Decomposition decomposition;  // constant, and what it uses is const-safe
  constexpr char32_t kFirstDecomposed = 0xC0;
  if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < kFirstDecomposed; })) return text;
  UErrorCode error = decomposition.error;
  const icu::UnicodeString whole =
      icu::UnicodeString::fromUTF32(reinterpret_cast<const UChar32*>(text.data()), static_cast<int32_t>(text.size()));
  const icu::Normalizer2& nfd = decomposition.nfd;
  const icu::UnicodeString decomposed = nfd.normalize(whole, error);
  return U_SUCCESS(error) ? FromIcu(decomposed) : text;
}

}  // namespace

std::u32string Characters(std::string_view utf8) {
  return FromIcu(icu::UnicodeString::fromUTF8({utf8.data(), static_cast<int32_t>(utf8.size())}));
}

std::string Utf8Of(std::u32string_view characters) {
  std::string utf8;
  icu::UnicodeString::fromUTF32(reinterpret_cast<const UChar32*>(characters.data()),
                                static_cast<int32_t>(characters.size()))
      .toUTF8String(utf8);
  return utf8;
}

bool IsWhitespace(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool IsOfWord(char32_t c) {
  constexpr char32_t kZeroWidthNonJoiner = 0x200C, kZeroWidthJoiner = 0x200D;
  return u_isUAlphabetic(static_cast<UChar32>(c)) || c == kZeroWidthNonJoiner || c == kZeroWidthJoiner ||
         (U_GET_GC_MASK(static_cast<UChar32>(c)) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0;
}

std::u32string BertNormalizer::Normalize(std::u32string_view text) const {
  constexpr char32_t kReplacement = 0xFFFD;
  std::u32string normalized;
  for (char32_t c : text) {
    if (clean_text) {
      if (c == 0 || c == kReplacement || IsControl(c)) continue;
      if (IsWhitespace(c)) c = ' ';
    }
    const bool spaced = handle_chinese_chars && IsIdeograph(c);
    if (spaced) normalized.push_back(' ');
    normalized.push_back(c);
    if (spaced) normalized.push_back(' ');
  }
  if (strip_accents) {
    normalized = Decompose(normalized);
    std::erase_if(normalized, IsNonspacingMark);
  }
  if (!lowercase) return normalized;
  std::u32string lower;
  for (const char32_t c : normalized) AppendLower(c, &lower);
  return lower;
}

std::vector<std::u32string_view> SplitWords(std::u32string_view text) {
  std::vector<std::u32string_view> words;
  size_t start = 0;
  const auto end_word = [&](size_t end) {
    if (start < end) words.push_back(text.substr(start, end - start));
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const bool punctuation = IsPunctuation(text[i]);
    if (!punctuation && !IsWhitespace(text[i])) continue;
    end_word(i);
    if (punctuation) words.push_back(text.substr(i, 1));
    start = i + 1;
  }
  end_word(text.size());
  return words;
}

}  // namespace polystill::corpus
