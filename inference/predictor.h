#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/tokenizer.h"
#include "models/package.h"

namespace polystill::inference {

// The package folder that a user means by `path`: a package itself, or a run's folder, of whose models the one called
// `model` is taken. NOT_FOUND lists the models that are there.
absl::StatusOr<std::string> FindPackage(const std::string& path, const std::string& model);

struct Prediction {
  // Index into Predictor::labels() of the most probable one, the lowest among equals.
  size_t label = 0;
  // Softmax of the logits, in the order of Predictor::labels(); they add up to 1.
  std::vector<float> probabilities;
};

// A package's model and tokeniser, asked about texts. Answers have the same bits whatever texts come together
// (models::FixedShapeForward). Thread-safe.
class Predictor {
 public:
  // Errors as for models::LoadPackage; INVALID_ARGUMENT for a package that reads token ids instead of text.
  static absl::StatusOr<Predictor> Open(const std::string& package);

  const std::vector<std::string>& labels() const { return labels_; }
  // INTERNAL: the model failed, or gave logits that are not finite.
  absl::StatusOr<std::vector<Prediction>> Predict(const std::vector<std::string>& texts) const;

 private:
  Predictor(models::Package package, std::shared_ptr<const corpus::Tokenizer> tokenizer);

  models::Package package_;
  std::shared_ptr<const corpus::Tokenizer> tokenizer_;
  std::vector<std::string> labels_;
};

}  // namespace polystill::inference
