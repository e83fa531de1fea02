#pragma once

#include <vector>

#include "coordinator/run_file_rules.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// Whether the label store of the i-th teacher is there, and holds what the run's losses and baselines need of it: all
// that its manifest says, but for which records.
std::vector<Mistake> CheckStore(const v1::RunSpec& spec, int i);

}  // namespace polystill::coordinator
