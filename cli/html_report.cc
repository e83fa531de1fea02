#include "cli/html_report.h"

#include "absl/strings/str_cat.h"
#include "runtime/python.h"

namespace polystill::cli {

absl::StatusOr<std::vector<std::string>> HtmlReportCommand(const std::string& programs, const std::string& run_folder) {
  const std::string modules = PythonModules(programs, "polystill_report");
  if (modules.empty()) {
    return absl::NotFoundError(
        absl::StrCat("Python's module polystill_report is neither in share/polystill/python nor in "
                     "the source tree around ",
                     programs));
  }
  // env sets the path of modules, and looks the Python up.
  return std::vector<std::string>{
      "/usr/bin/env", absl::StrCat("PYTHONPATH=", modules), PythonInterpreter(programs), "-m", "polystill_report",
      run_folder};
}

}  // namespace polystill::cli
