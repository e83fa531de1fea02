// The tokeniser by itself, for comparisons with other implementations (tests/references/wordpiece.py):
//
//   encode_texts TOKENIZER_FILE MAX_LENGTH < texts.jsonl > ids.jsonl
//
// A line of the input is a text in JSON, or a list of words; one of the output its ids, or {"ids", "firsts"}.

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "corpus/tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: encode_texts TOKENIZER_FILE MAX_LENGTH\n";
    return 2;
  }
  const auto tokenizer = polystill::corpus::Tokenizer::Load(argv[1], std::atoi(argv[2]));
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    const auto input = nlohmann::json::parse(line);
    if (input.is_string()) {
      std::cout << nlohmann::json((*tokenizer)->Encode(input.get<std::string>())).dump() << "\n";
      continue;
    }
    const auto words = (*tokenizer)->EncodeWords(input.get<std::vector<std::string>>());
    std::cout << nlohmann::json{{"ids", words.ids}, {"firsts", words.firsts}}.dump() << "\n";
  }
  return 0;
}
