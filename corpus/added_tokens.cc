#include "corpus/added_tokens.h"

#include <algorithm>
#include <utility>

namespace polystill::corpus {
namespace {

bool IsSingleWord(std::u32string_view text, size_t start, size_t stop) {
  return (start == 0 || !IsOfWord(text[start - 1])) && (stop == text.size() || !IsOfWord(text[stop]));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) {
  for (AddedToken& token : tokens) tokens_[token.content[0]].push_back(std::move(token));
  for (auto& [first, alike] : tokens_) {
    std::stable_sort(alike.begin(), alike.end(),
                     [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
  }
}

const AddedToken* AddedTokens::LongestAt(std::u32string_view text, size_t place) const {
  const auto alike = tokens_.find(text[place]);
  if (alike == tokens_.end()) return nullptr;
  for (const AddedToken& token : alike->second) {
    if (text.substr(place).starts_with(token.content)) return &token;
  }
  return nullptr;
}

std::vector<AddedTokens::Part> AddedTokens::Split(std::u32string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;  // what has become parts
  for (size_t place = 0; place < text.size();) {
    const AddedToken* const token = LongestAt(text, place);
    if (token == nullptr) {
      ++place;
      continue;
    }
    size_t start = place;
    size_t stop = place + token->content.size();
    place = stop;
    if (token->single_word && !IsSingleWord(text, start, stop)) continue;
    while (token->lstrip && start > done && IsWhitespace(text[start - 1])) --start;
    while (token->rstrip && stop < text.size() && IsWhitespace(text[stop])) ++stop;
    if (done < start) parts.push_back({text.substr(done, start - done)});
    parts.push_back({text.substr(start, stop - start), token->id});
    done = stop;
    // Like the reference, which goes on behind the token and not behind the white space that it took.
  }
  if (done < text.size()) parts.push_back({text.substr(done)});
  return parts;
}

}  // namespace polystill::corpus
