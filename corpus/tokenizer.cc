#include "corpus/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/sentencepiece.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::corpus {

struct Tokenizer::State {
  SentencePieceModel model;
  int max_length = 0;
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& file, int max_length) {
  if (max_length < 1) return absl::InvalidArgumentError("tokenizer.max_length must be at least 1");
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file));
  auto state = std::make_unique<State>();
  state->max_length = max_length;
  if (const std::string error = state->model.Load(bytes); !error.empty()) {
    return absl::DataLossError(absl::StrCat(file, ": not a SentencePiece model: ", error));
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int> ids = state_->model.Encode(text);
  if (ids.empty()) ids.push_back(state_->model.unknown_id());
  if (ids.size() > static_cast<size_t>(state_->max_length)) ids.resize(state_->max_length);
  return std::vector<int32_t>(ids.begin(), ids.end());
}

Tokenizer::Words Tokenizer::EncodeWords(const std::vector<std::string>& words) const {
  Words encoded;
  const auto limit = static_cast<size_t>(state_->max_length);
  for (const std::string& word : words) {
    if (encoded.ids.size() >= limit) break;
    encoded.firsts.push_back(static_cast<int32_t>(encoded.ids.size()));
    const std::vector<int32_t> ids = Encode(word);
    encoded.ids.insert(encoded.ids.end(), ids.begin(), ids.end());
  }
  if (encoded.ids.size() > limit) encoded.ids.resize(limit);
  return encoded;
}

int Tokenizer::vocab_size() const { return state_->model.vocab_size(); }
int Tokenizer::max_length() const { return state_->max_length; }
std::string Tokenizer::PieceOf(int32_t id) const { return state_->model.PieceOf(id); }

absl::StatusOr<int32_t> Tokenizer::MaskId() const {
  for (const char* piece : {kMaskPiece, "[MASK]"}) {
    if (const int id = state_->model.IdOf(piece); id != state_->model.unknown_id()) return id;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the tokeniser has no id for ", kMaskPiece, " or [MASK], which task: masked_lm needs"));
}

}  // namespace polystill::corpus
