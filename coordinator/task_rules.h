#pragma once

#include <vector>

#include "coordinator/run_file_rules.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What the task (RunSpec.task) asks of the rest of a run file whose defaults are filled: how many labels, which models,
// losses and metrics it takes, and that models which judge the same words read the same side.
std::vector<Mistake> CheckTask(const v1::RunSpec& spec);

}  // namespace polystill::coordinator
