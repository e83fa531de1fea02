#include "runtime/tokenizer_file.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace polystill {

absl::StatusOr<std::string> FindTokenizerFile(const std::string& folder) {
  const std::string sentencepiece = absl::StrCat(folder, "/", kSentencePieceFile);
  const std::string json = absl::StrCat(folder, "/", kTokenizerJsonFile);
  std::error_code error;
  const bool has_sentencepiece = std::filesystem::is_regular_file(sentencepiece, error);
  const bool has_json = std::filesystem::is_regular_file(json, error);
  if (has_sentencepiece && has_json) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": holds two tokenisers, ", kSentencePieceFile, " and ",
                                                   kTokenizerJsonFile,
                                                   "; leave the one that the model was trained with"));
  }
  if (has_sentencepiece) return sentencepiece;
  if (has_json) return json;
  return absl::NotFoundError(
      absl::StrCat(folder, ": holds no tokeniser, neither ", kSentencePieceFile, " nor ", kTokenizerJsonFile));
}

}  // namespace polystill
