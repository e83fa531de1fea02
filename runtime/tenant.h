#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace polystill {

// A call's metadata: who it is for. Servers share what they can do among those that they are asked by at once.
inline constexpr char kTenantKey[] = "polystill-tenant";

inline constexpr size_t kMaxTenantBytes = 64;

// INVALID_ARGUMENT unless it is at most kMaxTenantBytes of a-z, 0-9, '.', '_' and '-'; none is fine.
absl::Status CheckTenant(std::string_view tenant);

// The tenant of a run or of a person by name: what is not allowed becomes lower case or '-', what is too long is cut.
std::string TenantNamed(std::string_view name);

}  // namespace polystill
