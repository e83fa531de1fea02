#include "inference/predictor.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "models/package_manifest.h"
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
  labels_.assign(package_.info.signature.labels().begin(), package_.info.signature.labels().end());
}

absl::StatusOr<Predictor> Predictor::Open(const std::string& folder) {
  ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(folder));
  const v1::Signature& signature = package.info.signature;
  if (signature.input() != v1::Signature::INPUT_TEXT) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder, ": the model reads token ids, not text; ask it through a teacher server instead"));
  }
  ASSIGN_OR_RETURN(auto tokenizer, corpus::Tokenizer::Load(package.tokenizer_file, signature.max_length()));
  if (tokenizer->vocab_size() > signature.vocab_size()) {
    return absl::DataLossError(absl::StrCat(package.tokenizer_file, ": has ", tokenizer->vocab_size(),
                                            " ids, the model ", signature.vocab_size(), ": not of one package"));
  }
  return Predictor(std::move(package), std::move(tokenizer));
}

absl::StatusOr<std::vector<Prediction>> Predictor::Predict(const std::vector<std::string>& texts) const {
  if (texts.empty()) return std::vector<Prediction>();
  std::vector<std::vector<int32_t>> rows;
  for (const std::string& text : texts) rows.push_back(tokenizer_->Encode(text));
  try {
    const at::NoGradGuard no_grad;
    const at::Tensor logits = models::FixedShapeForward(*package_.model, rows).logits.to(at::kFloat);
    if (!at::isfinite(logits).all().item<bool>()) return absl::InternalError("the model gave logits not finite");
    const at::Tensor probabilities = at::softmax(logits, 1).contiguous();
    const int64_t classes = probabilities.size(1);
    const float* values = probabilities.const_data_ptr<float>();
    std::vector<Prediction> predictions;
    for (size_t i = 0; i < texts.size(); ++i, values += classes) {
      predictions.push_back(
          {static_cast<size_t>(std::max_element(values, values + classes) - values), {values, values + classes}});
    }
    return predictions;
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
}

}  // namespace polystill::inference
