#pragma once

#include <cstdint>
#include <functional>
#include <istream>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "inference/predictor.h"

namespace polystill::inference {

// A file of records to predict. Its rows come out as they are, in their order, with three more columns: `prediction`
// (the label), `probability` (its own) and `probabilities` (of every label, in the order of the model's); lists of them
// where a model says several labels, or one of each word (inference/predict_formats.h). One format
// for both sides, told by the ending: .jsonl (a JSON object a line), .parquet, or .txt (a text a line; comes out as
// .jsonl with `text`).
struct PredictFileOptions {
  std::string input;
  // Appears whole or not at all.
  std::string output;
  // Column of the text, or of its list of words where the model judges words; unused with .txt, whose words stand
  // between white space.
  std::string text_column = "text";
  // Called after every batch with the rows predicted so far; false ends the work with CANCELLED.
  std::function<bool(int64_t)> progress = [](int64_t) { return true; };
};

// Returns the number of rows. Errors name the file, and the line or column: INVALID_ARGUMENT (endings, a column that is
// missing, is no text or is one of the three), NOT_FOUND, DATA_LOSS (no whole Parquet file), RESOURCE_EXHAUSTED (disk
// full).
absl::StatusOr<int64_t> PredictFile(const Predictor& predictor, const PredictFileOptions& options);

// A text a line in, a JSON object a line out, flushed after every batch.
absl::StatusOr<int64_t> PredictLines(const Predictor& predictor, std::istream& in, std::ostream& out,
                                     const std::function<bool(int64_t)>& progress);

}  // namespace polystill::inference
