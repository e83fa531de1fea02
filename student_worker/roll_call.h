#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "collectives/group.h"
#include "polystill/v1/training.pb.h"

namespace polystill::student_worker {

// The ranks of a training come together about twice a second, after the same steps on each of them: there they agree
// whether to stop or to form anew, and see whether their weights are the same. Not thread-safe.
class RollCall {
 public:
  struct Answer {
    // Some rank is asked to stop.
    bool stop = false;
    // Some rank is ordered to leave the generation.
    bool regroup = false;
    // The longest time that a rank's step loop has waited for data.
    double waited_seconds = 0;
  };

  // `group` must outlive this. `first_step`: steps applied so far.
  RollCall(collectives::Group* group, int64_t first_step) : group_(group), next_(first_step + 1) {}

  // Whether it is time after `step` applied steps: on every rank or on none.
  bool IsDue(int64_t step) const { return step >= next_; }

  // A collective: what the ranks say together. INTERNAL: their weights differ; ABORTED: a peer is gone.
  absl::StatusOr<Answer> Hold(int64_t step, const v1::RankNote& note);

 private:
  collectives::Group* const group_;
  int64_t next_;
};

// Steps between two roll calls when the slowest rank needs so many seconds for a step: half a second's worth, at least
// one, at most a thousand.
int64_t StepsBetweenRollCalls(double step_seconds);

}  // namespace polystill::student_worker
