#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace polystill::corpus {

// How a tokeniser cuts texts into pieces. Const calls may run at once.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  // Ids of the pieces of a text, in [0, vocab_size); nothing is put around them. Bytes that are no UTF-8 do no harm.
  virtual std::vector<int> Encode(std::string_view text) const = 0;
  virtual int vocab_size() const = 0;
  virtual int unknown_id() const = 0;
  // unknown_id() when no id stands for the piece.
  virtual int IdOf(std::string_view piece) const = 0;
  // Empty for an id that stands for nothing.
  virtual std::string PieceOf(int id) const = 0;
};

}  // namespace polystill::corpus
