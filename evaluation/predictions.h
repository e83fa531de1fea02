#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/run.pb.h"

namespace polystill::evaluation {

// The Parquet file of all models' predictions, one row a record, with task token_classification one a judged word, with
// masked_lm one a hidden token:
//
//   id, language, group   string
//   gold                  string: the label's name; task multi_label: list<string>, the names of those that hold
//   position              int32, tasks of tokens alone: which of the record's words, or token ids, from 0
//   NAME_probabilities    list<float>, one column a model, in the order of the labels: softmax of its logits at
//                         temperature 1; task binary: of both labels; task multi_label: each logit's sigmoid
//
// Task masked_lm has the id of the token that stood there as gold, int32, and of each model in place of probabilities:
//
//   NAME_token            int32: the likeliest token id
//   NAME_rank             int32: how many ids it deems likelier than gold
//   NAME_log_probability  float: natural logarithm of what it gives gold
//
// The file's metadata names labels and models, as JSON arrays of strings: "polystill.labels", "polystill.models"; and
// the task as in the run file: "polystill.task".
inline constexpr char kTaskKey[] = "polystill.task";
inline constexpr char kLabelsKey[] = "polystill.labels";
inline constexpr char kModelsKey[] = "polystill.models";
inline constexpr char kProbabilitiesSuffix[] = "_probabilities";
inline constexpr char kTokenSuffix[] = "_token";
inline constexpr char kRankSuffix[] = "_rank";
inline constexpr char kLogProbabilitySuffix[] = "_log_probability";

// What a model says of a hidden token.
struct Guess {
  int32_t token = 0;
  int32_t rank = 0;
  float log_probability = 0;
};

// A row.
struct Prediction {
  std::string id;
  std::string language;
  std::string group;
  // Index into the labels; not of task multi_label. Of masked_lm a token id.
  int gold = 0;
  // [models][labels]; not of task masked_lm.
  std::vector<std::vector<float>> probabilities;
  // Task multi_label: for each label 1 where it holds, else 0.
  std::vector<int> labels = {};
  // Tasks of tokens: the word's or token's place.
  int position = 0;
  // Task masked_lm: one a model.
  std::vector<Guess> guesses = {};
};

// Writes the file under a temporary name and renames it in Finish; without Finish nothing stays. Not thread-safe.
class PredictionsWriter {
 public:
  // RESOURCE_EXHAUSTED on a full disk, else as the file system says; the message names the file.
  static absl::StatusOr<std::unique_ptr<PredictionsWriter>> Create(const std::string& path,
                                                                   const std::vector<std::string>& labels,
                                                                   const std::vector<std::string>& models,
                                                                   v1::Task task = v1::TASK_CLASSIFICATION);
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
  v1::Task task() const;

  // The next rows; empty at the end.
  absl::StatusOr<std::vector<Prediction>> Next();

 private:
  struct State;
  explicit PredictionsReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::evaluation
