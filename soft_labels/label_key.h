#pragma once

#include <cstdint>
#include <string>

#include "polystill/v1/teacher.pb.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {

// The identity of a soft label: who has the same key has the same label. SHA-256, 32 bytes, over fields in this order,
// each written as its length in bytes (8 bytes) and its bytes; integers are 8 bytes, a double is its IEEE 754 bits, all
// little-endian, lists are their numbers one after the other:
//
//   "polystill label key 1"
//   teacher: digest, tokenizer_sha256, backend, signature.max_length (where texts are cut)
//   output: its name
//   codec: its number, then temperature, k, draws and seed, each 0 where the codec does not depend on it, temperature 1
//          where it does and none is set
//   input: draw, score_ids, positions (0 and empty where the label does not depend on them; positions: logits of
//          tokens), then "text" and the text, or "ids" and the ids
//
// Thread-safe.
class LabelKeys {
 public:
  LabelKeys(const v1::DescribeReply& teacher, const v1::LabelSpec& spec, const Output& output);

  // Of one record's label.
  std::string KeyOf(const v1::LabelInput& input) const;

 private:
  const v1::Codec codec_;
  const bool at_positions_;
  std::string prefix_;
};

// A word of a key, for random draws that follow from it.
uint64_t KeyWord(const std::string& key);

}  // namespace polystill::soft_labels
