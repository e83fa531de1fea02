#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "inference/predict_files.h"

namespace polystill::inference {

// Columns that a prediction adds.
inline constexpr std::array<const char*, 3> kAddedColumns = {"prediction", "probability", "probabilities"};
// Rows that go through the model together.
inline constexpr size_t kRowsAtOnce = 256;

// What PredictFile does for each format; they write to `temporary`, beside options.output.
absl::StatusOr<int64_t> PredictTextFile(const Predictor& predictor, const PredictFileOptions& options,
                                        const std::string& temporary);
absl::StatusOr<int64_t> PredictParquetFile(const Predictor& predictor, const PredictFileOptions& options,
                                           const std::string& temporary);

}  // namespace polystill::inference
