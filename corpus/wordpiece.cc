#include "corpus/wordpiece.h"

#include <algorithm>
#include <utility>

namespace polystill::corpus {

WordPieceModel::WordPieceModel(WordPieceParts parts)
    : unknown_id_(parts.vocabulary.at(parts.unk_token)),
      max_input_chars_per_word_(static_cast<size_t>(parts.max_input_chars_per_word)),
      normalizer_(parts.normalizer) {
  const auto note = [this](int32_t id, const std::string& piece) {
    vocab_size_ = std::max(vocab_size_, id + 1);
    pieces_[id] = piece;
  };
  for (const auto& [piece, id] : parts.vocabulary) {
    note(id, piece);
    begins_.emplace(piece, id);
    longest_piece_ = std::max(longest_piece_, piece.size());
    if (!piece.starts_with(parts.continuing_subword_prefix)) continue;
    continues_.emplace(piece.substr(parts.continuing_subword_prefix.size()), id);
  }
  std::vector<AddedToken> verbatim, normalized;
  for (AddedToken& token : parts.added_tokens) {
    note(token.id, Utf8Of(token.content));
    if (!token.normalized) {
      verbatim.push_back(std::move(token));
      continue;
    }
    token.content = normalizer_.Normalize(token.content);
    normalized.push_back(std::move(token));
  }
  verbatim_ = AddedTokens(std::move(verbatim));
  normalized_ = AddedTokens(std::move(normalized));
}

std::vector<int> WordPieceModel::Encode(std::string_view text) const {
  std::vector<int> ids;
  const std::u32string characters = Characters(text);
  for (const AddedTokens::Part& part : verbatim_.Split(characters)) {
    if (part.id >= 0) {
      ids.push_back(part.id);
      continue;
    }
    const std::u32string normalized = normalizer_.Normalize(part.text);
    for (const AddedTokens::Part& piece : normalized_.Split(normalized)) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
        continue;
      }
      for (const std::u32string_view word : SplitWords(piece.text)) EncodeWord(word, &ids);
    }
  }
  return ids;
}

void WordPieceModel::EncodeWord(std::u32string_view word, std::vector<int>* ids) const {
  if (word.size() > max_input_chars_per_word_) return ids->push_back(unknown_id_);
  const std::string utf8 = Utf8Of(word);
  const size_t before = ids->size();
  const auto inside_character = [&utf8](size_t end) { return end < utf8.size() && (utf8[end] & 0xC0) == 0x80; };
  for (size_t start = 0; start < utf8.size();) {
    const Vocabulary& pieces = start == 0 ? begins_ : continues_;
    size_t end = std::min(utf8.size(), start + longest_piece_);
    auto found = pieces.end();
    for (; end > start; --end) {
      if (inside_character(end)) continue;
      found = pieces.find(std::string_view(utf8).substr(start, end - start));
      if (found != pieces.end()) break;
    }
    if (found == pieces.end()) {
      ids->resize(before);
      return ids->push_back(unknown_id_);
    }
    ids->push_back(found->second);
    start = end;
  }
}

int WordPieceModel::IdOf(std::string_view piece) const {
  const auto found =
      std::find_if(pieces_.begin(), pieces_.end(), [&](const auto& entry) { return entry.second == piece; });
  return found == pieces_.end() ? unknown_id_ : found->first;
}

std::string WordPieceModel::PieceOf(int id) const {
  const auto found = pieces_.find(id);
  return found == pieces_.end() ? "" : found->second;
}

}  // namespace polystill::corpus
