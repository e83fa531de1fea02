#pragma once

#include <string>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::losses {

// A feature of the student that follows one of the teacher, and the projection between them.
struct FeaturePair {
  // Names of features (models/outputs.h).
  std::string student;
  std::string teacher;
  // Name of the projection's weights, e.g. "projection.1.0.weight": of the first pair of the list's second loss.
  std::string projection;
};

// Those of a loss of a list; none unless it is embedding or hidden.
std::vector<FeaturePair> FeaturePairsOf(const v1::Loss& loss, int place_in_list);

}  // namespace polystill::losses
