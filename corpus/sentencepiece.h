#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "corpus/subword_model.h"

namespace polystill::corpus {

// All that is used of SentencePiece. Its own header declares an absl::string_view that clashes with Abseil's: hence
// none of either here, and only sentencepiece.cc includes it. Errors are text; empty means fine.

// Bytes of a text that training looks at.
inline constexpr int64_t kTrainingTextBytes = 4096;

// Trains a unigram model of exactly `vocab_size` ids: id 0 is the unknown, 256 stand for single bytes, so that every
// text can be written; with `control_pieces` the ids after 0 stand for those, which no text is ever encoded as. The
// same texts in the same order give the same model.
std::string TrainSentencePiece(const std::vector<std::string>& texts, int vocab_size,
                               const std::vector<std::string>& control_pieces, std::string* model);

class SentencePieceModel final : public SubwordModel {
 public:
  SentencePieceModel();
  ~SentencePieceModel() override;
  std::string Load(std::string_view model);
  std::vector<int> Encode(std::string_view text) const override;
  int vocab_size() const override;
  int unknown_id() const override;
  int IdOf(std::string_view piece) const override;
  std::string PieceOf(int id) const override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace polystill::corpus
