#pragma once

#include <memory>
#include <vector>

#include "tests/fault_points/trial.h"

namespace polystill::fault_points {

using Subjects = std::vector<std::shared_ptr<const Subject>>;

// Everything that writes durably and needs no LibTorch: files, folders, the coordinator's state, label stores,
// predictions.
Subjects PlainSubjects();
// What does: checkpoints, model packages, predicted files; and the label cache, whose library is left out with it.
Subjects TorchSubjects();

// A writer with a bug, and words that must be in what is found.
struct Planted {
  std::shared_ptr<const Subject> subject;
  std::vector<const char*> finding;
};
std::vector<Planted> PlantedBugs();

}  // namespace polystill::fault_points
