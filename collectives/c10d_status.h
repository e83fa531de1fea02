#pragma once

#include <c10/util/Exception.h>

#include <new>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace polystill::collectives {

// Runs `call`, the one place where exceptions of c10d and Gloo become a status: "cannot <doing>: <reason>". ABORTED: a
// peer is gone, or does not answer (Gloo's reasons name its address), so that another process has failed before this
// one; INTERNAL: no memory.
template <typename Call>
absl::Status CatchC10d(const std::string& doing, Call call) {
  try {
    call();
    return absl::OkStatus();
  } catch (const std::bad_alloc&) {
    return absl::InternalError(absl::StrCat("cannot ", doing, ": out of memory"));
  } catch (const c10::Error& error) {
    return absl::AbortedError(absl::StrCat("cannot ", doing, ": ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::AbortedError(absl::StrCat("cannot ", doing, ": ", error.what()));
  }
}

}  // namespace polystill::collectives
