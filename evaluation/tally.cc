#include "evaluation/tally.h"

#include <algorithm>
#include <limits>

namespace polystill::evaluation {

void Tally::Add(const Prediction& row) {
  const std::vector<Confusion> nothing(models_, Confusion(classes_));
  Language& language = languages_.try_emplace(row.language, Language{nothing, 0}).first->second;
  ++language.records;
  const int group = GroupOf(row);
  const int number = language_numbers_.try_emplace(row.language, language_numbers_.size()).first->second;
  for (int model = 0; model < models_; ++model) {
    const std::vector<float>& probabilities = row.probabilities[model];
    const int predicted = ArgMax(probabilities);
    const int64_t in_top_k = RankOf(probabilities, row.gold) < top_k_ ? 1 : 0;
    language.models[model].Add(row.gold, predicted, 1, in_top_k);
    Count& count = cells_[Key{number, model, group, row.gold, predicted}];
    ++count.records;
    count.in_top_k += in_top_k;
  }
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
  std::vector<std::pair<Key, Count>> sorted(cells_.begin(), cells_.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::map<std::pair<std::string, int>, std::vector<Cell>> cells;
  for (const auto& [key, count] : sorted) {
    const auto& [language, model, group, gold, predicted] = key;
    cells[{names[language], model}].push_back({group, gold, predicted, count.records, count.in_top_k});
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
