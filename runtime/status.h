#pragma once

#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

// Leaves the function with the status of `expr` when it is not OK.
#define RETURN_IF_ERROR(expr)                              \
  do {                                                     \
    ::absl::Status polystill_status_ = (expr);             \
    if (!polystill_status_.ok()) return polystill_status_; \
  } while (false)

#define POLYSTILL_CONCAT_INNER(a, b) a##b
#define POLYSTILL_CONCAT(a, b) POLYSTILL_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto value, Function()): the value, or leaves the function with the status.
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_IMPL(POLYSTILL_CONCAT(polystill_statusor_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                          \
  if (!statusor.ok()) return statusor.status();    \
  lhs = std::move(statusor).value()

namespace polystill {

// The same status with `context` and ": " before its message, e.g. the file or the record it is about.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(absl::string_view(context.data(), context.size()), ": ", status.message()));
}

}  // namespace polystill
