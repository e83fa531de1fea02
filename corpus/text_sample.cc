#include "corpus/text_sample.h"

#include <utility>

#include "runtime/counter_rng.h"
#include "runtime/utf8.h"

namespace polystill::corpus {
void TextSample::Add(std::string_view text) {
  text = Utf8Prefix(text, max_bytes_);
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
