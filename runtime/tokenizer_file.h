#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace polystill {

// Names of a tokeniser's file, in a tokeniser folder or a model package.
inline constexpr char kSentencePieceFile[] = "tokenizer.model";
inline constexpr char kTokenizerJsonFile[] = "tokenizer.json";

// The name for a file of such a content: HuggingFace's tokenizer.json begins with '{', anything else is taken for a
// SentencePiece model.
inline std::string TokenizerFileName(std::string_view content) {
  return content.starts_with('{') ? kTokenizerJsonFile : kSentencePieceFile;
}

// The path of the one of the two that `folder` holds. NOT_FOUND when it holds none, INVALID_ARGUMENT when both.
absl::StatusOr<std::string> FindTokenizerFile(const std::string& folder);

}  // namespace polystill
