#pragma once

#include <cstdint>
#include <vector>

#include "polystill/v1/run.pb.h"
#include "polystill/v1/training.pb.h"

namespace polystill::student_worker {

// What all ranks found together. Whole numbers are added: the sum does not depend on how the records were shared out.
v1::HeldOutCounts Sum(const std::vector<v1::HeldOutCounts>& parts);

// The metric, mean over the languages of which something was judged; NaN when nothing was. `classes`: the labels.
double MetricOf(v1::EarlyStopping::Metric metric, const v1::HeldOutCounts& counts, int classes,
                v1::Task task = v1::TASK_CLASSIFICATION);

// Decides when a training ends for want of improvement: a pure function of what was measured. Not thread-safe.
class EarlyStopper {
 public:
  EarlyStopper(v1::EarlyStopping spec, v1::EarlyStoppingState state)
      : spec_(std::move(spec)), state_(std::move(state)) {}

  // Whether to measure after `step` applied steps.
  bool IsDue(int64_t step) const { return step > 0 && step % spec_.every() == 0; }
  // Takes a measurement; true when it is the best so far.
  bool Note(int64_t step, double value);
  // The training is to end.
  bool ended() const { return state_.without_improvement() >= spec_.patience(); }

  const v1::EarlyStopping& spec() const { return spec_; }
  const v1::EarlyStoppingState& state() const { return state_; }

 private:
  const v1::EarlyStopping spec_;
  v1::EarlyStoppingState state_;
};

}  // namespace polystill::student_worker
