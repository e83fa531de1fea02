#pragma once

#include <string_view>

#include "arrow/util/utf8.h"

namespace polystill::corpus {

inline bool IsUtf8(std::string_view text) {
  // Without its tables, which nothing else fills, Arrow takes everything for valid.
  static const bool ready = (arrow::util::InitializeUTF8(), true);
  return ready && arrow::util::ValidateUTF8(text);
}

}  // namespace polystill::corpus
