#pragma once

#include <cstdint>
#include <string>

namespace polystill::cli {

// "1,234,567".
std::string WithThousands(int64_t number);

// "12 s", "3 min 05 s", "2 h 10 min".
std::string Duration(double seconds);

// `text` in a field of `width` columns; a longer text stays whole.
std::string PadRight(const std::string& text, size_t width);
std::string PadLeft(const std::string& text, size_t width);

}  // namespace polystill::cli
