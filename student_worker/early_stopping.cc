#include "student_worker/early_stopping.h"

#include <cmath>
#include <cstddef>
#include <map>
#include <string>

#include "evaluation/metrics.h"

namespace polystill::student_worker {
namespace {

double LossOf(const v1::HeldOutCounts::Language& language) {
  return std::ldexp(static_cast<double>(language.loss()), -32) / static_cast<double>(language.judged());
}

// Cells [3 * label + 0 .. 2], as HeldOutCounts says.
void AddLabels(const v1::HeldOutCounts::Language& language, int labels, evaluation::Confusion* confusion) {
  constexpr int kNone = evaluation::kNone;
  for (int label = 0; label < labels; ++label) {
    confusion->Add(label, label, language.confusion(3 * label), 0);
    confusion->Add(label, kNone, language.confusion(3 * label + 1), 0);
    confusion->Add(kNone, label, language.confusion(3 * label + 2), 0);
  }
  confusion->Add(kNone, kNone, language.judged(), language.right());
}

evaluation::Confusion ConfusionOf(const v1::HeldOutCounts::Language& language, int classes, v1::Task task) {
  evaluation::Confusion confusion(classes, task);
  if (task == v1::TASK_MULTI_LABEL) {
    AddLabels(language, classes, &confusion);
    return confusion;
  }
  for (int cell = 0; cell < language.confusion_size(); ++cell) {
    confusion.Add(cell / classes, cell % classes, language.confusion(cell), 0);
  }
  return confusion;
}

double MetricOf(v1::EarlyStopping::Metric metric, const v1::HeldOutCounts::Language& language, int classes,
                v1::Task task) {
  switch (metric) {
    case v1::EarlyStopping::METRIC_LOSS:
      return LossOf(language);
    case v1::EarlyStopping::METRIC_MACRO_F1:
      return ConfusionOf(language, classes, task).Value(evaluation::Metric::kMacroF1);
    default:
      if (task == v1::TASK_MASKED_LM) {
        return static_cast<double>(language.right()) / static_cast<double>(language.judged());
      }
      return ConfusionOf(language, classes, task).Value(evaluation::Metric::kAccuracy);
  }
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
      sum.set_judged(sum.judged() + language.judged());
      sum.set_right(sum.right() + language.right());
    }
  }
  v1::HeldOutCounts sum;
  for (auto& [name, language] : by_name) {
    language.set_name(name);
    *sum.add_languages() = std::move(language);
  }
  return sum;
}

double MetricOf(v1::EarlyStopping::Metric metric, const v1::HeldOutCounts& counts, int classes, v1::Task task) {
  double sum = 0;
  int judged = 0;
  for (const auto& language : counts.languages()) {
    if (language.judged() == 0) continue;
    sum += MetricOf(metric, language, classes, task);
    ++judged;
  }
  return sum / judged;
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
