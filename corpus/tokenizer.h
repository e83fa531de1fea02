#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::corpus {

// Name of the model file in a tokeniser folder or a model package.
inline constexpr char kTokenizerFile[] = "tokenizer.model";

// The piece that stands for a hidden token, of the models that are trained here.
inline constexpr char kMaskPiece[] = "<mask>";

// Trains a SentencePiece unigram model on distinct texts sampled from the corpus: the sides that `selections` read, at
// most tokenizer.training_sentences texts, chosen by `seed` alone, spread over the languages as they are; then writes
// folder/tokenizer.model atomically. Deterministic: the same corpus and seed give the same file. No label is read.
// `with_mask`: one id stands for kMaskPiece. `progress(done, total)` counts bytes: those of the files while they are
// sampled, then as many again at the end of training. INVALID_ARGUMENT when the texts cannot fill vocab_size, or need a
// larger one (the message says which would do), and as for Reader when the corpus is not as it should be.
absl::Status TrainTokenizer(const v1::Tokenizer& tokenizer, const std::vector<v1::Selection>& selections, uint64_t seed,
                            bool with_mask, const std::string& folder,
                            const std::function<void(int64_t, int64_t)>& progress);

// Text to token ids. Thread-safe.
class Tokenizer {
 public:
  // `file`: a SentencePiece model. NOT_FOUND, DATA_LOSS (not such a model).
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& file, int max_length);
  ~Tokenizer();

  // At most max_length ids, cut at the end; an empty text gives one unknown id, so that no input is empty.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The words of one text: each encoded by itself, their ids one after the other, at most max_length of them. A word is
  // judged at its first id (Devlin et al. 2019, arXiv:1810.04805, section 5.3); one whose first id is cut, not at all.
  struct Words {
    std::vector<int32_t> ids;
    // Place in `ids` of each word's first one, of the words that fit: the first ones, in their order.
    std::vector<int32_t> firsts;
  };
  Words EncodeWords(const std::vector<std::string>& words) const;

  int vocab_size() const;
  int max_length() const;
  // The id that stands for a hidden token: of kMaskPiece, or of BERT's [MASK]. FAILED_PRECONDITION when there is none.
  absl::StatusOr<int32_t> MaskId() const;
  // What an id in [0, vocab_size) stands for, in SentencePiece's writing: "\u2581" is the space before a word.
  std::string PieceOf(int32_t id) const;

 private:
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::corpus
