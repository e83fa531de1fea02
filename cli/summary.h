#pragma once

#include <string>

#include "polystill/v1/run.pb.h"

namespace polystill::cli {

// What a run will do, a line a stage: model, records, losses, epochs.
std::string Summary(const v1::RunSpec& spec);

}  // namespace polystill::cli
