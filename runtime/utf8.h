#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace polystill {

// Protobuf refuses to parse a message with a string that is not UTF-8: what comes from outside is checked here first,
// and is never cut in the middle of a character.

// Length in bytes of the character at the start of `text`; 0 when no valid one is there.
size_t Utf8Length(std::string_view text);

bool IsUtf8(std::string_view text);

// The longest prefix of at most `max_bytes` that ends with a whole character.
std::string_view Utf8Prefix(std::string_view text, size_t max_bytes);

// A text of the caller's for a message: at most 200 bytes of it.
std::string Excerpt(std::string_view text);

// `text` for a field of a message: itself, or with its bytes above 127 as \xNN when it is not UTF-8 (a file's name may
// be anything).
std::string EscapeUnlessUtf8(std::string text);

}  // namespace polystill
