#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "arrow/result.h"
#include "arrow/status.h"
#include "arrow/util/io_util.h"
#include "runtime/files.h"

namespace polystill {

// Arrow's status as ours, about the file or path `what`. What the system reports keeps its meaning (FileError: a full
// disk, a missing permission, no such file), and so does a lack of memory; anything else is `code`, what a failure of
// this call means to the caller.
inline absl::Status FromArrow(const arrow::Status& status, absl::StatusCode code, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsOutOfMemory()) code = absl::StatusCode::kResourceExhausted;
  const int error_number = arrow::internal::ErrnoFromStatus(status);
  if (error_number != 0) {
    const absl::Status error = FileError(error_number, what, "read or write");
    if (!absl::IsInternal(error)) return error;
  }
  return absl::Status(code, absl::StrCat(what, ": ", status.message()));
}

template <typename T>
absl::StatusOr<T> FromArrow(arrow::Result<T> result, absl::StatusCode code, const std::string& what) {
  if (!result.ok()) return FromArrow(result.status(), code, what);
  return std::move(result).ValueUnsafe();
}

}  // namespace polystill
