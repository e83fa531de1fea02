#include "evaluation/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
    case Metric::kMicroPrecision:
      return "micro_precision";
    case Metric::kMicroRecall:
      return "micro_recall";
    case Metric::kPerplexity:
      return "perplexity";
  }
  return "";
}

bool HasMetric(v1::Task task, Metric metric) {
  if (task == v1::TASK_MASKED_LM) {
    return metric == Metric::kAccuracy || metric == Metric::kTopK || metric == Metric::kPerplexity;
  }
  if (metric == Metric::kPerplexity) return false;
  const bool many = task == v1::TASK_MULTI_LABEL;
  if (metric == Metric::kTopK) return !many && task != v1::TASK_BINARY;
  return many || (metric != Metric::kMicroPrecision && metric != Metric::kMicroRecall);
}

void Confusion::Add(int gold, int predicted, int64_t records, int64_t hits, double loss) {
  loss_ += loss;
  if (!many_ || (gold == kNone && predicted == kNone)) {
    records_ += records;
    hits_ += hits;
    if (many_) return;
  }
  if (gold != kNone) classes_.at(gold).gold += records;
  if (predicted != kNone) classes_.at(predicted).predicted += records;
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
      return Ratio(hits_, records_);
    case Metric::kAccuracy:  // with one class a record, one that is wrong is one FP and one FN
      return many_ ? Ratio(hits_, records_) : Micro().f1;
    case Metric::kMicroF1:
      return Micro().f1;
    case Metric::kMicroPrecision:
      return Micro().precision;
    case Metric::kMicroRecall:
      return Micro().recall;
    case Metric::kPerplexity:
      return std::exp(loss_ / static_cast<double>(records_));
  }
  return std::numeric_limits<double>::quiet_NaN();
}

std::optional<ClassScores> Confusion::OfClass(int index) const {
  const Class& c = classes_.at(index);
  if (!many_ && c.gold + c.predicted == 0) return std::nullopt;
  return ScoresOf(c);
}

ClassScores Confusion::ScoresOf(const Class& c) {
  // gold = TP + FN and predicted = TP + FP.
  return {Ratio(c.both, c.predicted), Ratio(c.both, c.gold), Ratio(2 * c.both, c.gold + c.predicted), c.gold};
}

ClassScores Confusion::Micro() const {
  Class sum;
  for (const Class& c : classes_) {
    sum.gold += c.gold;
    sum.predicted += c.predicted;
    sum.both += c.both;
  }
  return ScoresOf(sum);
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

bool IsPredicted(float probability) { return probability > 0.5f; }

}  // namespace polystill::evaluation
