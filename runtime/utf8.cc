#include "runtime/utf8.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"

namespace polystill {

// The Unicode Standard, table 3-7: well-formed byte sequences.
size_t Utf8Length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned first = byte(0), second = byte(1);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool allowed = !(first == 0xe0 && second < 0xa0) && !(first == 0xed && second > 0x9f);
    return allowed && continues(1) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool allowed = !(first == 0xf0 && second < 0x90) && !(first == 0xf4 && second > 0x8f);
    return allowed && continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    uint64_t eight = ~uint64_t{0};
    if (text.size() >= sizeof(eight)) std::memcpy(&eight, text.data(), sizeof(eight));
    // Eight bytes of ASCII at a time: most of most texts.
    const size_t length = (eight & 0x8080808080808080u) == 0 ? sizeof(eight) : Utf8Length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string_view Utf8Prefix(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  while (max_bytes > 0 && (static_cast<unsigned char>(text[max_bytes]) & 0xc0) == 0x80) --max_bytes;
  return text.substr(0, max_bytes);
}

std::string Excerpt(std::string_view text) { return std::string(Utf8Prefix(text, 200)); }

std::string EscapeUnlessUtf8(std::string text) { return IsUtf8(text) ? std::move(text) : absl::CHexEscape(text); }

}  // namespace polystill
