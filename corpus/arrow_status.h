#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "arrow/result.h"
#include "arrow/status.h"

namespace polystill::corpus {

// Arrow's status as ours: `code` (what a failure of this call means to the caller), the message after `what`, the file
// or path it is about. Out of memory stays RESOURCE_EXHAUSTED.
inline absl::Status FromArrow(const arrow::Status& status, absl::StatusCode code, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  if (status.IsOutOfMemory()) code = absl::StatusCode::kResourceExhausted;
  return absl::Status(code, absl::StrCat(what, ": ", status.message()));
}

template <typename T>
absl::StatusOr<T> FromArrow(arrow::Result<T> result, absl::StatusCode code, const std::string& what) {
  if (!result.ok()) return FromArrow(result.status(), code, what);
  return std::move(result).ValueUnsafe();
}

}  // namespace polystill::corpus
