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
  // `file`: a SentencePiece model, or a tokenizer.json (tokenizer_json.h says which; any name will do). NOT_FOUND,
  // DATA_LOSS (neither), UNIMPLEMENTED (a tokenizer.json of another kind than WordPiece), INVALID_ARGUMENT (max_length
  // leaves no room for a token beside those that the tokeniser puts around each text). All name the file.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& file, int max_length);
  ~Tokenizer();

  // At most max_length ids, cut at the end; a text of no token gives one unknown id, so that no input is empty. Of a
  // tokenizer.json: what HuggingFace `tokenizers` gives for the text, cut to max_length: before() and after() stand
  // around it, count and are never cut.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The ids of Encode without what stands around them, all of them; none for a text of no token.
  std::vector<int32_t> Pieces(std::string_view text) const;
  // before(), at most so many of `pieces` as max_length leaves room for, after().
  std::vector<int32_t> Framed(std::vector<int32_t> pieces) const;
  // The words of one text: the pieces of each by itself, one after the other, framed once as a whole, as BERT takes a
  // text of words (`is_split_into_words` of HuggingFace): nothing stands between words. A word of no token has one
  // unknown id. A word is judged at its first id (Devlin et al. 2019, arXiv:1810.04805, section 5.3); one whose first
  // id is cut, not at all.
  struct Words {
    std::vector<int32_t> ids;
    // Place in `ids` of each word's first one, of the words that fit: the first ones, in their order.
    std::vector<int32_t> firsts;
  };
  Words EncodeWords(const std::vector<std::string>& words) const;

  // Ids that stand before and after those of each text: [CLS] and [SEP] of BERT; none with SentencePiece.
  const std::vector<int32_t>& before() const;
  const std::vector<int32_t>& after() const;
  // Ids are in [0, vocab_size).
  int vocab_size() const;
  int max_length() const;
  // The id that stands for a hidden token: of kMaskPiece, or of BERT's [MASK]. FAILED_PRECONDITION when there is none.
  absl::StatusOr<int32_t> MaskId() const;
  // What an id in [0, vocab_size) stands for, in the model's writing: with SentencePiece "\u2581" is the space before a
  // word, with WordPiece "##" goes on with one. Empty for an id that a tokenizer.json leaves out.
  std::string PieceOf(int32_t id) const;

 private:
  // Room for pieces beside before() and after().
  size_t Room() const;

  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::corpus
