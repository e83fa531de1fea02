#pragma once

#include <cstdint>

#include "polystill/v1/run.pb.h"

namespace polystill::student_worker {

// Learning rate of step `step` (0 is the first) of a job of `steps`: a line from zero, which the step before the first
// would have, to optimizer.lr at step warmup_steps; from there constant, or half a cosine that is zero at the last
// step.
double LearningRate(const v1::Optimizer& optimizer, int64_t step, int64_t steps);

}  // namespace polystill::student_worker
