#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill::evaluation {

// The Parquet file of all models' predictions, one row a record:
//
//   id, language, group   string
//   gold                  string: the label's name
//   NAME_probabilities    list<float>, one column a model: softmax of its logits at temperature 1, in the order of
//   labels
//
// The file's metadata names labels and models, as JSON arrays of strings: "polystill.labels", "polystill.models".
inline constexpr char kLabelsKey[] = "polystill.labels";
inline constexpr char kModelsKey[] = "polystill.models";
inline constexpr char kProbabilitiesSuffix[] = "_probabilities";

// A row.
struct Prediction {
  std::string id;
  std::string language;
  std::string group;
  // Index into the labels.
  int gold = 0;
  // [models][labels].
  std::vector<std::vector<float>> probabilities;
};

// Writes the file under a temporary name and renames it in Finish; without Finish nothing stays. Not thread-safe.
class PredictionsWriter {
 public:
  // RESOURCE_EXHAUSTED on a full disk, else as the file system says; the message names the file.
  static absl::StatusOr<std::unique_ptr<PredictionsWriter>> Create(const std::string& path,
                                                                   const std::vector<std::string>& labels,
                                                                   const std::vector<std::string>& models);
  ~PredictionsWriter();

  // INVALID_ARGUMENT names the record whose gold class or probabilities do not fit labels and models.
  absl::Status Append(const std::vector<Prediction>& rows);

  // Call once, last.
  absl::Status Finish();

 private:
  struct State;
  explicit PredictionsWriter(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Reads such a file piece by piece. Not thread-safe.
class PredictionsReader {
 public:
  // NOT_FOUND, or DATA_LOSS when it is no such file; the message names it.
  static absl::StatusOr<std::unique_ptr<PredictionsReader>> Open(const std::string& path);
  ~PredictionsReader();

  const std::vector<std::string>& labels() const;
  const std::vector<std::string>& models() const;

  // The next rows; empty at the end.
  absl::StatusOr<std::vector<Prediction>> Next();

 private:
  struct State;
  explicit PredictionsReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::evaluation
