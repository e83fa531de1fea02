#include "corpus/text_sample.h"

#include <utility>

#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

// The longest prefix of at most `max_bytes` that ends with a whole character.
std::string_view Prefix(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xc0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

}  // namespace

void TextSample::Add(std::string_view text) {
  text = Prefix(text, max_bytes_);
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return;
  const uint64_t hash = CombineKey(seed_, NameWord(text));
  if (size() == size_ && hash > std::prev(texts_.end())->first) return;
  texts_.try_emplace(hash, text);
  if (size() > size_) texts_.erase(std::prev(texts_.end()));
}

std::vector<std::string> TextSample::Take() {
  std::vector<std::string> texts;
  texts.reserve(texts_.size());
  for (auto& [hash, text] : texts_) texts.push_back(std::move(text));
  texts_.clear();
  return texts;
}

}  // namespace polystill::corpus
