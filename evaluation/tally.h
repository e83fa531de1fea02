#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "evaluation/metrics.h"
#include "evaluation/predictions.h"

namespace polystill::evaluation {

// All models' predictions, counted: by language for the table, by group and language for the bootstrap. Its size grows
// with the groups (a record without a group is one of its own), not with the texts. Not thread-safe.
class Tally {
 public:
  struct Language {
    // One a model.
    std::vector<Confusion> models;
    int64_t records = 0;
  };
  // Records of one group that one model treated alike: what Confusion::Add takes of that group.
  struct Cell {
    int group, gold, predicted;
    int64_t records, hits;
    double loss;
  };

  // `classes`: the labels; task masked_lm has none.
  Tally(int models, int classes, int top_k, v1::Task task = v1::TASK_CLASSIFICATION)
      : models_(models), classes_(task == v1::TASK_MASKED_LM ? kJudgements : classes), top_k_(top_k), task_(task) {}

  // A row as PredictionsReader gives it.
  void Add(const Prediction& row);

  int models() const { return models_; }
  // Without counts.
  Confusion Empty() const { return Confusion(classes_, task_); }
  v1::Task task() const { return task_; }
  int groups() const { return groups_; }
  // By name.
  const std::map<std::string, Language>& languages() const { return languages_; }
  // (language, model) -> its cells, in an order that depends on the rows alone.
  std::map<std::pair<std::string, int>, std::vector<Cell>> Cells() const;

 private:
  struct Sum {
    int64_t records = 0;
    int64_t hits = 0;
    double loss = 0;
  };
  // A row's place in the counts.
  struct Place {
    Language* language;
    int number, model, group;
  };
  using Key = std::tuple<int, int, int, int, int>;  // language (by appearance), model, group, gold, predicted

  int GroupOf(const Prediction& row);
  void AddLabels(const Place& place, const std::vector<int>& holds, const std::vector<float>& probabilities);
  void Count(const Place& place, int gold, int predicted, int64_t hits, double loss = 0);

  const int models_;
  const int classes_;
  const int top_k_;
  const v1::Task task_;
  int groups_ = 0;
  std::map<std::string, Language> languages_;
  absl::flat_hash_map<std::string, int> language_numbers_;
  absl::flat_hash_map<std::string, int> group_numbers_;
  absl::flat_hash_map<Key, Sum> cells_;
};

// Unweighted mean over the languages that have records with a gold label; NaN without any.
double MeanOf(const Tally& tally, int model, Metric metric);

}  // namespace polystill::evaluation
