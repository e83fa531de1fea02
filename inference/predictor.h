#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/tokenizer.h"
#include "models/package.h"

namespace polystill::inference {

// The package folder that a user means by `path`: a package itself, or a run's folder, of whose models the one called
// `model` is taken. NOT_FOUND lists the models that are there.
absl::StatusOr<std::string> FindPackage(const std::string& path, const std::string& model);

// What a model is asked about: a text, or its words where the model judges words.
struct Question {
  std::string text;
  std::vector<std::string> words;
};

// What a model says of a text, or of one of its words, or of a hidden token.
struct Judgement {
  // Indices into Predictor::labels(): the most probable one, the lowest among equals; task multi_label: all that are
  // predicted, above 1/2, maybe none.
  std::vector<size_t> labels;
  // In the order of Predictor::labels(): softmax of the logits, or with task multi_label each label's sigmoid.
  std::vector<float> probabilities;
};

// One of a text; where the model judges words, one of each of the first words, as many as its max_length has room for;
// of a masked language model one of each corpus::kMaskPiece ("<mask>") in the text, as many as there is room for.
using Prediction = std::vector<Judgement>;

// A package's model and tokeniser, asked about texts. Answers have the same bits whatever texts come together
// (models::FixedShapeForward). Thread-safe.
class Predictor {
 public:
  // Errors as for models::LoadPackage; INVALID_ARGUMENT for a package that reads token ids instead of text.
  static absl::StatusOr<Predictor> Open(const std::string& package);

  // Of a masked language model the pieces of its tokeniser.
  const std::vector<std::string>& labels() const { return labels_; }
  v1::Task task() const { return task_; }
  // Whether questions are lists of words.
  bool judges_words() const { return task_ == v1::TASK_TOKEN_CLASSIFICATION; }
  bool fills_masks() const { return task_ == v1::TASK_MASKED_LM; }
  // INTERNAL: the model failed, or gave logits that are not finite.
  absl::StatusOr<std::vector<Prediction>> Predict(const std::vector<Question>& questions) const;

 private:
  Predictor(models::Package package, std::shared_ptr<const corpus::Tokenizer> tokenizer);
  // Token ids with one for each mask, and their places.
  std::pair<std::vector<int32_t>, std::vector<int32_t>> EncodeMasked(const std::string& text) const;
  // Of rows, or of their tokens at `wanted`, in their order. Throws c10::Error.
  absl::StatusOr<std::vector<Judgement>> Judge(const models::Rows& rows, const models::Wanted& wanted) const;
  // Those that are predicted.
  std::vector<size_t> LabelsOf(std::span<const float> probabilities) const;

  models::Package package_;
  std::shared_ptr<const corpus::Tokenizer> tokenizer_;
  std::vector<std::string> labels_;
  v1::Task task_;
  int32_t mask_id_ = 0;  // when it fills masks
};

}  // namespace polystill::inference
