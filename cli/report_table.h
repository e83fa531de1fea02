#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace polystill::cli {

// The table of a report (the text of report.json): a row a language and a last row of means; records, then the report's
// `metrics` of each model, in percent with one decimal, in one table or, where that is too wide, one a metric. Below,
// how far the distilled student's mean is from each baseline's, and what teacher and student take. DATA_LOSS when the
// text is no report.
absl::StatusOr<std::string> ReportTable(const std::string& report);

}  // namespace polystill::cli
