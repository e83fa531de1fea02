#pragma once

#include <c10/util/Exception.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace polystill::collectives {

// Runs `call`, the one place where exceptions of c10d and Gloo become a status: UNAVAILABLE, "cannot <doing>:
// <reason>". Gloo's reasons name the peer's address.
template <typename Call>
absl::Status CatchC10d(const std::string& doing, Call call) {
  try {
    call();
    return absl::OkStatus();
  } catch (const c10::Error& error) {
    return absl::UnavailableError(absl::StrCat("cannot ", doing, ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot ", doing, ": ", error.what()));
  }
}

}  // namespace polystill::collectives
