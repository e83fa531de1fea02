#include "inference/predictor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "models/package_manifest.h"
#include "models/probabilities.h"
#include "runtime/status.h"

namespace polystill::inference {
namespace {

namespace fs = std::filesystem;

bool IsPackage(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / models::kManifestFile, error);
}

// Names of the packages in a run's folder, sorted.
std::vector<std::string> ModelsOf(const fs::path& run) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(run / "models", error), end; !error && entry != end; entry.increment(error)) {
    if (IsPackage(entry->path())) names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<std::string> FindPackage(const std::string& path, const std::string& model) {
  if (IsPackage(path)) return path;
  const fs::path in_run = fs::path(path) / "models" / model;
  if (IsPackage(in_run)) return in_run.string();
  const std::vector<std::string> names = ModelsOf(path);
  if (names.empty()) {
    return absl::NotFoundError(absl::StrCat(path, ": neither a model package (a folder with ", models::kManifestFile,
                                            ") nor the folder of a run that has trained one"));
  }
  return absl::NotFoundError(
      absl::StrCat(path, ": the run has no model '", model, "'; it has ", absl::StrJoin(names, ", ")));
}

Predictor::Predictor(models::Package package, std::shared_ptr<const corpus::Tokenizer> tokenizer)
    : package_(std::move(package)), tokenizer_(std::move(tokenizer)) {
  const v1::Signature& signature = package_.info.signature;
  labels_.assign(signature.labels().begin(), signature.labels().end());
  task_ = signature.task() == v1::TASK_UNSPECIFIED ? v1::TASK_CLASSIFICATION : signature.task();
  mask_id_ = signature.mask_id();
  for (int32_t id = 0; fills_masks() && id < tokenizer_->vocab_size(); ++id) labels_.push_back(tokenizer_->PieceOf(id));
}

absl::StatusOr<Predictor> Predictor::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(folder));
  const v1::Signature& signature = package.info.signature;
  if (!models::GivesLogits(signature)) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder,
                     ": the model gives features alone (its signature.labels is empty), so there is nothing to "
                     "predict; ask it for them through a teacher server"));
  }
  if (signature.input() != v1::Signature::INPUT_TEXT) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder,
                     ": the model reads token ids, not text; make them with polystill-tokenize and ask it through a "
                     "teacher server"));
  }
  ASSIGN_OR_RETURN(auto tokenizer, corpus::Tokenizer::Load(package.tokenizer_file, signature.max_length()));
  if (tokenizer->vocab_size() > signature.vocab_size()) {
    return absl::DataLossError(absl::StrCat(package.tokenizer_file, ": has ", tokenizer->vocab_size(),
                                            " ids, the model ", signature.vocab_size(), ": not of one package"));
  }
  return Predictor(std::move(package), std::move(tokenizer));
}

absl::StatusOr<std::vector<Prediction>> Predictor::Predict(const std::vector<Question>& questions) const {
  models::Rows rows;
  models::Wanted wanted;
  for (const Question& question : questions) {
    if (judges_words()) {
      corpus::Tokenizer::Words words = tokenizer_->EncodeWords(question.words);
      rows.push_back(words.ids.empty() ? tokenizer_->Encode("") : std::move(words.ids));  // no input is empty
      wanted.positions.push_back(std::move(words.firsts));
    } else if (fills_masks()) {
      auto [ids, places] = EncodeMasked(question.text);
      rows.push_back(std::move(ids));
      wanted.positions.push_back(std::move(places));
    } else {
      rows.push_back(tokenizer_->Encode(question.text));
    }
  }
  const bool of_tokens = models::JudgesTokens(task_);
  std::vector<Prediction> predictions(questions.size());
  try {
    ASSIGN_OR_RETURN(std::vector<Judgement> judgements, Judge(rows, wanted));
    auto next = judgements.begin();
    for (size_t i = 0; i < questions.size(); ++i) {
      const auto count = static_cast<ptrdiff_t>(of_tokens ? wanted.positions[i].size() : 1);
      predictions[i].assign(std::make_move_iterator(next), std::make_move_iterator(next + count));
      next += count;
    }
    return predictions;
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

std::pair<std::vector<int32_t>, std::vector<int32_t>> Predictor::EncodeMasked(const std::string& text) const {
  std::vector<int32_t> pieces;
  bool first = true;
  const std::vector<std::string> parts = absl::StrSplit(text, corpus::kMaskPiece);
  for (const std::string& part : parts) {
    if (!first) pieces.push_back(mask_id_);
    first = false;
    const std::vector<int32_t> of_part = tokenizer_->Pieces(part);
    pieces.insert(pieces.end(), of_part.begin(), of_part.end());
  }
  // A text may also name the mask as its tokeniser does, [MASK].
  std::vector<int32_t> ids = pieces.empty() ? tokenizer_->Encode("") : tokenizer_->Framed(std::move(pieces));
  std::vector<int32_t> places;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] == mask_id_) places.push_back(static_cast<int32_t>(i));
  }
  return {std::move(ids), std::move(places)};
}

absl::StatusOr<std::vector<Judgement>> Predictor::Judge(const models::Rows& rows, const models::Wanted& wanted) const {
  const auto has_some = [](const std::vector<int32_t>& places) { return !places.empty(); };
  const bool nothing = models::JudgesTokens(task_)
                           ? std::none_of(wanted.positions.begin(), wanted.positions.end(), has_some)
                           : rows.empty();
  if (nothing) return std::vector<Judgement>();
  const at::NoGradGuard no_grad;
  at::Tensor logits = models::FixedShapeForward(*package_.model, rows, wanted).logits.to(at::kFloat);
  // A vocabulary that is larger than the tokeniser's has ids that stand for nothing.
  if (fills_masks()) logits = logits.narrow(1, 0, static_cast<int64_t>(labels_.size()));
  if (!at::isfinite(logits).all().item<bool>()) return absl::InternalError("the model gave logits not finite");
  const at::Tensor probabilities = models::Probabilities(task_, logits).contiguous();
  const int64_t classes = probabilities.size(1);
  const float* values = probabilities.const_data_ptr<float>();
  std::vector<Judgement> judgements;
  for (int64_t i = 0; i < probabilities.size(0); ++i, values += classes) {
    judgements.push_back({LabelsOf({values, static_cast<size_t>(classes)}), {values, values + classes}});
  }
  return judgements;
}

std::vector<size_t> Predictor::LabelsOf(std::span<const float> probabilities) const {
  if (task_ != v1::TASK_MULTI_LABEL) {
    return {static_cast<size_t>(std::max_element(probabilities.begin(), probabilities.end()) - probabilities.begin())};
  }
  std::vector<size_t> labels;
  for (size_t label = 0; label < probabilities.size(); ++label) {
    if (probabilities[label] > 0.5f) labels.push_back(label);
  }
  return labels;
}

}  // namespace polystill::inference
