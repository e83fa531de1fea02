#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/statusor.h"

namespace polystill::teacher_server {

// Whom a call is for, as its metadata says (runtime/tenant.h); empty when it says nothing. INVALID_ARGUMENT for what is
// no tenant, or two of them.
absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context);

}  // namespace polystill::teacher_server
