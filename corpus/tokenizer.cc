#include "corpus/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/sentencepiece.h"
#include "corpus/tokenizer_json.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"

namespace polystill::corpus {

struct Tokenizer::State {
  std::unique_ptr<const SubwordModel> model;
  std::vector<int32_t> before, after;
  int max_length = 0;
};

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& file, int max_length) {
  if (max_length < 1) return absl::InvalidArgumentError("tokenizer.max_length must be at least 1");
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(file));
  auto state = std::make_unique<State>();
  state->max_length = max_length;
  if (TokenizerFileName(bytes) == kTokenizerJsonFile) {
    absl::StatusOr<TokenizerJson> read = ReadTokenizerJson(bytes);
    if (!read.ok()) return Annotate(read.status(), file);
    state->model = std::move(read->model);
    state->before = std::move(read->before);
    state->after = std::move(read->after);
  } else {
    auto model = std::make_unique<SentencePieceModel>();
    if (const std::string error = model->Load(bytes); !error.empty()) {
      return absl::DataLossError(
          absl::StrCat(file, ": not a SentencePiece model, nor a tokenizer.json, which begins with '{': ", error));
    }
    state->model = std::move(model);
  }
  const size_t around = state->before.size() + state->after.size();
  if (around >= static_cast<size_t>(max_length)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": puts ", around,
                                                   " tokens around each text; a max_length of ", max_length,
                                                   " leaves room for none of the text's, raise it"));
  }
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::move(state)));
}

std::vector<int32_t> Tokenizer::Pieces(std::string_view text) const {
  const std::vector<int> ids = state_->model->Encode(text);
  return std::vector<int32_t>(ids.begin(), ids.end());
}

size_t Tokenizer::Room() const { return state_->max_length - state_->before.size() - state_->after.size(); }

std::vector<int32_t> Tokenizer::Framed(std::vector<int32_t> pieces) const {
  pieces.resize(std::min(pieces.size(), Room()));
  pieces.insert(pieces.begin(), before().begin(), before().end());
  pieces.insert(pieces.end(), after().begin(), after().end());
  return pieces;
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids = Framed(Pieces(text));
  if (ids.empty()) ids.push_back(state_->model->unknown_id());
  return ids;
}

Tokenizer::Words Tokenizer::EncodeWords(const std::vector<std::string>& words) const {
  Words encoded;
  std::vector<int32_t> pieces;
  for (const std::string& word : words) {
    if (pieces.size() >= Room()) break;
    encoded.firsts.push_back(static_cast<int32_t>(before().size() + pieces.size()));
    const std::vector<int32_t> ids = Pieces(word);
    pieces.insert(pieces.end(), ids.begin(), ids.end());
    if (ids.empty()) pieces.push_back(state_->model->unknown_id());
  }
  encoded.ids = Framed(std::move(pieces));
  return encoded;
}

const std::vector<int32_t>& Tokenizer::before() const { return state_->before; }
const std::vector<int32_t>& Tokenizer::after() const { return state_->after; }
int Tokenizer::vocab_size() const { return state_->model->vocab_size(); }
int Tokenizer::max_length() const { return state_->max_length; }
std::string Tokenizer::PieceOf(int32_t id) const { return state_->model->PieceOf(id); }

absl::StatusOr<int32_t> Tokenizer::MaskId() const {
  for (const char* piece : {kMaskPiece, "[MASK]"}) {
    if (const int id = state_->model->IdOf(piece); id != state_->model->unknown_id()) return id;
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the tokeniser has no id for ", kMaskPiece, " or [MASK], which task: masked_lm needs"));
}

}  // namespace polystill::corpus
