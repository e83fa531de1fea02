#include "evaluation/metrics.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace polystill::evaluation {
namespace {

// 0 where nothing is divided by nothing: scikit-learn's zero_division.
double Ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

}  // namespace

const char* MetricName(Metric metric) {
  switch (metric) {
    case Metric::kAccuracy:
      return "accuracy";
    case Metric::kMacroF1:
      return "macro_f1";
    case Metric::kMicroF1:
      return "micro_f1";
    case Metric::kMacroPrecision:
      return "macro_precision";
    case Metric::kMacroRecall:
      return "macro_recall";
    case Metric::kTopK:
      return "top_k";
  }
  return "";
}

void Confusion::Add(int gold, int predicted, int64_t records, int64_t in_top_k) {
  records_ += records;
  in_top_k_ += in_top_k;
  classes_.at(gold).gold += records;
  classes_.at(predicted).predicted += records;
  if (gold == predicted) classes_.at(gold).both += records;
}

double Confusion::Value(Metric metric) const {
  if (records_ == 0) return std::numeric_limits<double>::quiet_NaN();
  switch (metric) {
    case Metric::kMacroF1:
      return Macro(&ClassScores::f1);
    case Metric::kMacroPrecision:
      return Macro(&ClassScores::precision);
    case Metric::kMacroRecall:
      return Macro(&ClassScores::recall);
    case Metric::kTopK:
      return Ratio(in_top_k_, records_);
    case Metric::kAccuracy:
    case Metric::kMicroF1:  // every record that is wrong is one FP and one FN: 2 TP / (2 TP + FP + FN) = TP / records
      break;
  }
  const auto add = [](int64_t sum, const Class& c) { return sum + c.both; };
  return Ratio(std::accumulate(classes_.begin(), classes_.end(), int64_t{0}, add), records_);
}

std::optional<ClassScores> Confusion::OfClass(int index) const {
  const Class& c = classes_.at(index);
  if (c.gold + c.predicted == 0) return std::nullopt;
  // gold = TP + FN and predicted = TP + FP.
  return ClassScores{Ratio(c.both, c.predicted), Ratio(c.both, c.gold), Ratio(2 * c.both, c.gold + c.predicted),
                     c.gold};
}

double Confusion::Macro(double ClassScores::*score) const {
  double sum = 0;
  int occurring = 0;
  for (int i = 0; i < classes(); ++i) {
    const auto scores = OfClass(i);
    if (!scores.has_value()) continue;
    sum += (*scores).*score;
    ++occurring;
  }
  return sum / occurring;
}

int ArgMax(const std::vector<float>& values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

int RankOf(const std::vector<float>& values, int index) {
  const float value = values.at(index);
  int before = 0;
  for (int i = 0; i < static_cast<int>(values.size()); ++i) {
    if (values[i] > value || (values[i] == value && i < index)) ++before;
  }
  return before;
}

}  // namespace polystill::evaluation
