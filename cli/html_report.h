#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::cli {

// The command that makes report.html of the run in `run_folder`: Python's module polystill_report, found beside the
// programs, which are in `programs` (share/polystill/python, when installed), or in the source tree that they were
// built in. The Python is the one that POLYSTILL_PYTHON names, else that of the source tree's .venv, else python3.
// NOT_FOUND when the module is not there.
absl::StatusOr<std::vector<std::string>> HtmlReportCommand(const std::string& programs, const std::string& run_folder);

}  // namespace polystill::cli
