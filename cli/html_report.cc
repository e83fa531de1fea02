#include "cli/html_report.h"

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;

// `place` in `folder` or the nearest folder around it that has it; empty when none has.
fs::path FindAround(const fs::path& folder, const fs::path& place) {
  std::error_code error;
  for (fs::path around = folder;; around = around.parent_path()) {
    if (fs::exists(around / place, error)) return around / place;
    if (around == around.parent_path()) return {};
  }
}

std::string Python(const fs::path& programs) {
  const char* const named = std::getenv("POLYSTILL_PYTHON");
  if (named != nullptr && *named != '\0') return named;
  const fs::path own = FindAround(programs, ".venv/bin/python");
  return own.empty() ? "python3" : own.string();
}

}  // namespace

absl::StatusOr<std::vector<std::string>> HtmlReportCommand(const std::string& programs, const std::string& run_folder) {
  for (const char* place : {"share/polystill/python", "python"}) {
    const fs::path module = FindAround(programs, fs::path(place) / "polystill_report");
    if (module.empty()) continue;
    // env sets the path of modules, and looks the Python up.
    return std::vector<std::string>{"/usr/bin/env",     absl::StrCat("PYTHONPATH=", module.parent_path().string()),
                                    Python(programs),   "-m",
                                    "polystill_report", run_folder};
  }
  return absl::NotFoundError(
      absl::StrCat("Python's module polystill_report is neither in share/polystill/python nor in "
                   "the source tree around ",
                   programs));
}

}  // namespace polystill::cli
