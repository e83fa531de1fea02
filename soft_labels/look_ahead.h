#pragma once

#include <cstdint>
#include <deque>

namespace polystill::soft_labels {

// The fewest and the most steps that a worker gets ready ahead where nobody says how many.
inline constexpr int kLeastLookAhead = 2;
inline constexpr int kMostLookAhead = 64;
// Before anything was measured, and where nobody waits for labels.
inline constexpr int kFirstLookAhead = 4;
// Most memory that labels got ahead may take, unless those of kLeastLookAhead steps take more.
inline constexpr int64_t kMostLabelBytes = int64_t{512} << 20;

// What was measured of the last steps.
struct StepTimes {
  // From asking for a step's labels until the last has come: what nineteen of twenty do not exceed. Seconds.
  double label_seconds = 0;
  // From getting a batch until asking for the next one, on average: what the step itself takes. Seconds.
  double step_seconds = 0;
  // The most that the decoded labels of a step take.
  int64_t label_bytes = 0;
};

// How many steps to get ready ahead so that labels are there when their step begins: ceil(label_seconds / step_seconds)
// + 1, by Little's law and one that is being used; between the bounds above. Where the teacher is slower than the
// student this grows to the most, which is right: the teacher then has as much to sort by length as memory allows.
int LookAheadFor(const StepTimes& times);

// Measures, and says how far to look ahead: `steps` if that is not 0, whatever is measured. Not thread-safe.
class LookAhead {
 public:
  explicit LookAhead(int steps) : fixed_(steps) {}

  void NoteLabels(double seconds, int64_t bytes);
  void NoteStep(double seconds);
  int steps() const;

 private:
  void Measure();

  const int fixed_;
  // Of the last steps, newest last.
  std::deque<double> label_seconds_;
  std::deque<int64_t> label_bytes_;
  std::deque<double> step_seconds_;
  int now_ = kFirstLookAhead;
};

}  // namespace polystill::soft_labels
