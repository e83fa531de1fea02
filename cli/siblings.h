#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace polystill::cli {

// Becomes polystill-<role> of `folder` with these arguments; returns only when that fails (NOT_FOUND names the file).
absl::Status BecomeSibling(const std::string& folder, const std::string& role,
                           const std::vector<std::string>& arguments);

// Becomes the program argv[0]; returns only when that fails (NOT_FOUND names the file).
absl::Status BecomeProgram(const std::vector<std::string>& argv);

}  // namespace polystill::cli
