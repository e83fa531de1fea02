#pragma once

#include <string>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What is wrong with a key of a run file.
struct Mistake {
  // Dotted path, e.g. "student.losses.0.teacher".
  std::string path;
  // What is wrong and what to write.
  std::string what;
};

// The rules of a run file that a schema cannot state: names that must be unique or known, keys that only go together.
// `spec` as read, defaults filled.
std::vector<Mistake> CheckRules(const v1::RunSpec& spec);

// The paths in the run file that do not exist.
std::vector<Mistake> CheckPaths(const v1::RunSpec& spec);

}  // namespace polystill::coordinator
