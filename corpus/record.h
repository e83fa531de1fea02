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
  // Index into corpus.labels; -1 without a label, or when the selection does not read labels.
  int label = -1;
  // Records that belong together; empty when the corpus has no such column.
  std::string group;
};

}  // namespace polystill::corpus
