#pragma once

#include <arrow/status.h>
#include <arrow/util/io_util.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "runtime/files.h"

// Leaves the function with the absl::Status for a failed Arrow call on file `path`.
#define RETURN_IF_ARROW_ERROR(expr, path)                           \
  do {                                                              \
    const ::arrow::Status arrow_status_ = (expr);                   \
    if (!arrow_status_.ok()) return FromArrow(arrow_status_, path); \
  } while (false)

namespace polystill::evaluation {

// Errors of the file system keep their meaning (a full disk is RESOURCE_EXHAUSTED); what else Arrow finds is DATA_LOSS.
inline absl::Status FromArrow(const arrow::Status& status, const std::string& path) {
  const int error_number = arrow::internal::ErrnoFromStatus(status);
  if (error_number != 0) return FileError(error_number, path, "read or write");
  return absl::DataLossError(absl::StrCat(path, ": ", status.message()));
}

}  // namespace polystill::evaluation
