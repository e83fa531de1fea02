#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace polystill::cli {

// The table of a report (the text of report.json): a row a language and a last row of means; records, then accuracy and
// macro-F1 of zero_shot, no_teacher, distilled and gold, as far as they are there, in percent with one decimal.
// DATA_LOSS when the text is no report.
absl::StatusOr<std::string> ReportTable(const std::string& report);

}  // namespace polystill::cli
