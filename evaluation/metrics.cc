#include "evaluation/metrics.h"

#include <algorithm>
#include <limits>

namespace polystill::evaluation {

void Confusion::Add(int gold, int predicted) {
  ++records_;
  ++classes_.at(gold).gold;
  ++classes_.at(predicted).predicted;
  if (gold == predicted) ++classes_.at(gold).both;
}

double Confusion::Accuracy() const {
  int64_t correct = 0;
  for (const Class& c : classes_) correct += c.both;
  if (records_ == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(correct) / static_cast<double>(records_);
}

double Confusion::MacroF1() const {
  double sum = 0;
  int occurring = 0;
  for (const Class& c : classes_) {
    // 2 TP + FP + FN: gold = TP + FN and predicted = TP + FP.
    const int64_t denominator = c.gold + c.predicted;
    if (denominator == 0) continue;
    sum += 2.0 * static_cast<double>(c.both) / static_cast<double>(denominator);
    ++occurring;
  }
  return occurring == 0 ? std::numeric_limits<double>::quiet_NaN() : sum / occurring;
}

int ArgMax(const std::vector<float>& values) {
  return static_cast<int>(std::max_element(values.begin(), values.end()) - values.begin());
}

}  // namespace polystill::evaluation
