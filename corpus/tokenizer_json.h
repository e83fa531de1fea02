#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/subword_model.h"

namespace polystill::corpus {

// What a HuggingFace tokenizer.json says.
struct TokenizerJson {
  std::unique_ptr<const SubwordModel> model;
  // Ids that the file's post-processor puts before and after each text: [CLS] and [SEP].
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

// Reads a tokenizer.json whose model is BERT's: WordPiece, BertNormalizer (or none), BertPreTokenizer, and
// TemplateProcessing, BertProcessing or no post-processor. Its `truncation` to the right and its `padding` say how many
// tokens a batch has, which is the signature's matter: they are passed over.
//
// DATA_LOSS: not the JSON that it should be; UNIMPLEMENTED: a part of another kind, with the remedy. Both name the key.
absl::StatusOr<TokenizerJson> ReadTokenizerJson(const std::string& bytes);

}  // namespace polystill::corpus
