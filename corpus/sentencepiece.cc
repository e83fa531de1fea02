#include "corpus/sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace polystill::corpus {
namespace {

constexpr char kNormalization[] = "nmt_nfkc";

// The number in `message` after `mark`; 0 when it is not there.
int NumberAfter(const std::string& message, const std::string& mark) {
  const size_t at = message.find(mark);
  return at == std::string::npos ? 0 : std::atoi(message.c_str() + at + mark.size());
}

// SentencePiece's own words about a size that does not fit, as what to write instead.
std::string Explain(const std::string& message, int vocab_size) {
  const std::string size = std::to_string(vocab_size);
  if (const int most = NumberAfter(message, "set it to a value <= "); most > 0) {
    return "the texts yield only " + std::to_string(most) + " of " + size + " token ids; set tokenizer.vocab_size to " +
           std::to_string(most) + " or less, or give more text";
  }
  if (const int least = NumberAfter(message, "required_chars. " + size + " vs "); least > 0) {
    return "the texts' characters and the single bytes alone take " + std::to_string(least) +
           " token ids; set tokenizer.vocab_size to that or more, not " + size;
  }
  return "SentencePiece: " + message;
}

std::string Joined(const std::vector<std::string>& pieces) {
  std::string joined;
  for (const std::string& piece : pieces) joined += (joined.empty() ? "" : ",") + piece;
  return joined;
}

// Whether training would keep the text. SentencePiece ends the process when it keeps none.
bool IsUsable(const std::string& text, const sentencepiece::SentencePieceNormalizer& normalizer) {
  // SentencePiece's own sign for an unknown character.
  return text.find("\u2585") == std::string::npos && !normalizer.Normalize(text).empty();
}

}  // namespace

std::string TrainSentencePiece(const std::vector<std::string>& texts, int vocab_size,
                               const std::vector<std::string>& control_pieces, std::string* model) {
  sentencepiece::SentencePieceNormalizer normalizer;
  const sentencepiece::util::Status loaded = normalizer.LoadFromRuleName(kNormalization);
  if (!loaded.ok()) return loaded.ToString();
  if (std::none_of(texts.begin(), texts.end(), [&](const std::string& text) { return IsUsable(text, normalizer); })) {
    return "there is no text to train on";
  }
  std::unordered_map<std::string, std::string> options = {
      {"model_type", "unigram"},
      {"vocab_size", std::to_string(vocab_size)},
      {"character_coverage", "0.9995"},
      {"byte_fallback", "true"},
      {"normalization_rule_name", kNormalization},
      {"unk_id", "0"},
      {"bos_id", "-1"},
      {"eos_id", "-1"},
      // Texts are dealt to threads by their number and sums are added in the order of the threads, so that the model
      // depends on this number, and must not depend on the machine.
      {"num_threads", "8"},
      // Pieces to begin with; a tenth of them stays. With SentencePiece's million, 24,000 pieces take a fifth longer to
      // train and are no better.
      {"seed_sentencepiece_size", std::to_string(int64_t{10} * vocab_size)},
      {"max_sentence_length", std::to_string(kTrainingTextBytes)},
      {"minloglevel", "3"},
  };
  if (!control_pieces.empty()) options["control_symbols"] = Joined(control_pieces);
  const sentencepiece::util::Status status = sentencepiece::SentencePieceTrainer::Train(options, texts, model);
  return status.ok() ? "" : Explain(status.ToString(), vocab_size);
}

struct SentencePieceModel::State {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel() : state_(std::make_unique<State>()) {}
SentencePieceModel::~SentencePieceModel() = default;

std::string SentencePieceModel::Load(std::string_view model) {
  const sentencepiece::util::Status status = state_->processor.LoadFromSerializedProto(model);
  return status.ok() ? "" : status.ToString();
}

std::vector<int> SentencePieceModel::Encode(std::string_view text) const { return state_->processor.EncodeAsIds(text); }

int SentencePieceModel::vocab_size() const { return state_->processor.GetPieceSize(); }
int SentencePieceModel::unknown_id() const { return state_->processor.unk_id(); }
int SentencePieceModel::IdOf(std::string_view piece) const { return state_->processor.PieceToId(piece); }
std::string SentencePieceModel::PieceOf(int id) const { return state_->processor.IdToPiece(id); }

}  // namespace polystill::corpus
