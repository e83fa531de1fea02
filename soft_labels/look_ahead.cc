#include "soft_labels/look_ahead.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace polystill::soft_labels {
namespace {

// Steps that are remembered, and of which there must be so many before they count.
constexpr size_t kRemembered = 64;
constexpr size_t kEnough = 4;

template <typename T>
void Remember(T value, std::deque<T>* last) {
  last->push_back(value);
  if (last->size() > kRemembered) last->pop_front();
}

double Percentile95(const std::deque<double>& values) {
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return sorted[(sorted.size() * 19 + 19) / 20 - 1];
}

}  // namespace

int LookAheadFor(const StepTimes& times) {
  double steps = kMostLookAhead;
  if (times.label_seconds < times.step_seconds * kMostLookAhead) {
    steps = std::ceil(times.label_seconds / times.step_seconds) + 1;
  }
  if (times.label_bytes > 0) steps = std::min(steps, static_cast<double>(kMostLabelBytes / times.label_bytes));
  return static_cast<int>(std::clamp<double>(steps, kLeastLookAhead, kMostLookAhead));
}

void LookAhead::NoteLabels(double seconds, int64_t bytes) {
  Remember(seconds, &label_seconds_);
  Remember(bytes, &label_bytes_);
  Measure();
}

void LookAhead::NoteStep(double seconds) {
  Remember(seconds, &step_seconds_);
  Measure();
}

void LookAhead::Measure() {
  if (label_seconds_.size() < kEnough || step_seconds_.size() < kEnough) return;
  const double steps = static_cast<double>(step_seconds_.size());
  now_ = LookAheadFor({.label_seconds = Percentile95(label_seconds_),
                       .step_seconds = std::accumulate(step_seconds_.begin(), step_seconds_.end(), 0.0) / steps,
                       .label_bytes = *std::max_element(label_bytes_.begin(), label_bytes_.end())});
}

int LookAhead::steps() const { return fixed_ > 0 ? fixed_ : now_; }

}  // namespace polystill::soft_labels
