#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace polystill::corpus {

// One training example.
struct Record {
  std::string id;
  std::string language;
  // The two sides, filled as the selection asks.
  std::string text;
  std::string source_text;
  // Token ids of the two sides, with tokenizer kind ids.
  std::vector<int32_t> ids;
  std::vector<int32_t> source_ids;
  // The words of the two sides in place of text, with task token_classification and a tokeniser.
  std::vector<std::string> words;
  std::vector<std::string> source_words;
  // Index into corpus.labels; -1 without a label, or when the selection does not read labels.
  int label = -1;
  // Task multi_label: for each of corpus.labels 1 where it holds, else 0. Task token_classification: for each word (or
  // token id, also those that tokenizer.max_length cuts) an index into corpus.labels, -1 where it has none. Empty when
  // the selection does not read labels.
  std::vector<int> labels;
  // Records that belong together; empty when the corpus has no such column.
  std::string group;
};

}  // namespace polystill::corpus
