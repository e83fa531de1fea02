#include "evaluation/tally.h"

#include <algorithm>
#include <limits>

namespace polystill::evaluation {

void Tally::Add(const Prediction& row) {
  const std::vector<Confusion> nothing(models_, Empty());
  Language& language = languages_.try_emplace(row.language, Language{nothing, 0}).first->second;
  ++language.records;
  Place place{&language, 0, 0, GroupOf(row)};
  place.number = language_numbers_.try_emplace(row.language, language_numbers_.size()).first->second;
  for (place.model = 0; place.model < models_; ++place.model) {
    if (task_ == v1::TASK_MASKED_LM) {
      const Guess& guess = row.guesses[place.model];
      Count(place, kRight, guess.token == row.gold ? kRight : kWrong, guess.rank < top_k_ ? 1 : 0,
            -guess.log_probability);
      continue;
    }
    const std::vector<float>& probabilities = row.probabilities[place.model];
    if (task_ == v1::TASK_MULTI_LABEL) {
      AddLabels(place, row.labels, probabilities);
    } else {
      Count(place, row.gold, ArgMax(probabilities), RankOf(probabilities, row.gold) < top_k_ ? 1 : 0);
    }
  }
}

void Tally::AddLabels(const Place& place, const std::vector<int>& holds, const std::vector<float>& probabilities) {
  bool right = true;
  for (int label = 0; label < classes_; ++label) {
    const int gold = holds[label] != 0 ? label : kNone, predicted = IsPredicted(probabilities[label]) ? label : kNone;
    right = right && gold == predicted;
    if (gold != kNone || predicted != kNone) Count(place, gold, predicted, 0);
  }
  Count(place, kNone, kNone, right ? 1 : 0);
}

void Tally::Count(const Place& place, int gold, int predicted, int64_t hits, double loss) {
  place.language->models[place.model].Add(gold, predicted, 1, hits, loss);
  Sum& sum = cells_[Key{place.number, place.model, place.group, gold, predicted}];
  ++sum.records;
  sum.hits += hits;
  sum.loss += loss;
}

int Tally::GroupOf(const Prediction& row) {
  if (row.group.empty()) return groups_++;
  const auto [found, added] = group_numbers_.try_emplace(row.group, groups_);
  if (added) ++groups_;
  return found->second;
}

std::map<std::pair<std::string, int>, std::vector<Tally::Cell>> Tally::Cells() const {
  std::vector<std::string> names(language_numbers_.size());
  for (const auto& [name, number] : language_numbers_) names[number] = name;
  std::vector<std::pair<Key, Sum>> sorted(cells_.begin(), cells_.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::map<std::pair<std::string, int>, std::vector<Cell>> cells;
  for (const auto& [key, sum] : sorted) {
    const auto& [language, model, group, gold, predicted] = key;
    cells[{names[language], model}].push_back({group, gold, predicted, sum.records, sum.hits, sum.loss});
  }
  return cells;
}

double MeanOf(const Tally& tally, int model, Metric metric) {
  double sum = 0;
  int languages = 0;
  for (const auto& [name, language] : tally.languages()) {
    if (language.records == 0) continue;
    sum += language.models[model].Value(metric);
    ++languages;
  }
  return languages == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / languages;
}

}  // namespace polystill::evaluation
