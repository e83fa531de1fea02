#include "teacher_server/call_tenant.h"

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "runtime/tenant.h"

namespace polystill::teacher_server {

absl::StatusOr<std::string> TenantOf(const grpc::CallbackServerContext& context) {
  const auto [first, last] = context.client_metadata().equal_range(kTenantKey);
  if (first == last) return std::string();
  if (std::next(first) != last) {
    return absl::InvalidArgumentError(absl::StrCat("metadata ", kTenantKey, " was sent twice; a call is for one"));
  }
  std::string tenant(first->second.data(), first->second.size());
  RETURN_IF_ERROR(CheckTenant(tenant));
  return tenant;
}

}  // namespace polystill::teacher_server
