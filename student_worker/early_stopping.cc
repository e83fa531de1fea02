#include "student_worker/early_stopping.h"

#include <cmath>
#include <cstddef>
#include <map>
#include <string>

#include "evaluation/metrics.h"

namespace polystill::student_worker {
namespace {

double LossOf(const v1::HeldOutCounts::Language& language) {
  int64_t records = 0;
  for (const int64_t count : language.confusion()) records += count;
  return std::ldexp(static_cast<double>(language.loss()), -32) / static_cast<double>(records);
}

evaluation::Confusion ConfusionOf(const v1::HeldOutCounts::Language& language, int classes) {
  evaluation::Confusion confusion(classes);
  for (int cell = 0; cell < language.confusion_size(); ++cell) {
    confusion.Add(cell / classes, cell % classes, language.confusion(cell), 0);
  }
  return confusion;
}

}  // namespace

v1::HeldOutCounts Sum(const std::vector<v1::HeldOutCounts>& parts) {
  std::map<std::string, v1::HeldOutCounts::Language> by_name;
  for (const v1::HeldOutCounts& part : parts) {
    for (const auto& language : part.languages()) {
      v1::HeldOutCounts::Language& sum = by_name[language.name()];
      sum.mutable_confusion()->Resize(language.confusion_size(), 0);
      for (int cell = 0; cell < language.confusion_size(); ++cell) {
        sum.set_confusion(cell, sum.confusion(cell) + language.confusion(cell));
      }
      sum.set_loss(sum.loss() + language.loss());
    }
  }
  v1::HeldOutCounts sum;
  for (auto& [name, language] : by_name) {
    language.set_name(name);
    *sum.add_languages() = std::move(language);
  }
  return sum;
}

double MetricOf(v1::EarlyStopping::Metric metric, const v1::HeldOutCounts& counts, int classes) {
  double sum = 0;
  for (const auto& language : counts.languages()) {
    switch (metric) {
      case v1::EarlyStopping::METRIC_LOSS:
        sum += LossOf(language);
        break;
      case v1::EarlyStopping::METRIC_MACRO_F1:
        sum += ConfusionOf(language, classes).Value(evaluation::Metric::kMacroF1);
        break;
      default:
        sum += ConfusionOf(language, classes).Value(evaluation::Metric::kAccuracy);
    }
  }
  return sum / counts.languages_size();
}

bool EarlyStopper::Note(int64_t step, double value) {
  const bool first = state_.best_step() == 0;
  const bool lower_is_better = spec_.metric() == v1::EarlyStopping::METRIC_LOSS;
  const bool better = first || (lower_is_better ? value < state_.best() : value > state_.best());
  state_.set_last(value);
  state_.set_last_step(step);
  state_.set_without_improvement(better ? 0 : state_.without_improvement() + 1);
  if (!better) return false;
  state_.set_best(value);
  state_.set_best_step(step);
  return true;
}

}  // namespace polystill::student_worker
