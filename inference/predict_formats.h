#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/predict_files.h"

namespace polystill::inference {

// Columns that a prediction adds.
inline constexpr std::array<const char*, 3> kAddedColumns = {"prediction", "probability", "probabilities"};
// Rows that go through the model together.
inline constexpr size_t kRowsAtOnce = 256;

// The values of the added columns for one record: `prediction`, the label, with task multi_label a list of those that
// are predicted, and where words are judged a list of one a word; `probability`, the same with their probabilities;
// `probabilities` of every label, where words are judged a list of such lists. Words that the model's max_length leaves
// no room for have nulls.
std::array<nlohmann::ordered_json, kAddedColumns.size()> AddedValues(const Predictor& predictor,
                                                                     const Question& question,
                                                                     const Prediction& prediction);

// The words of a plain text: what stands between white space.
std::vector<std::string> SplitWords(const std::string& text);

// What PredictFile does for each format; they write to `temporary`, beside options.output.
absl::StatusOr<int64_t> PredictTextFile(const Predictor& predictor, const PredictFileOptions& options,
                                        const std::string& temporary);
absl::StatusOr<int64_t> PredictParquetFile(const Predictor& predictor, const PredictFileOptions& options,
                                           const std::string& temporary);

}  // namespace polystill::inference
