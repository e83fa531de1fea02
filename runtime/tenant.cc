#include "runtime/tenant.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "runtime/utf8.h"

namespace polystill {
namespace {

bool IsAllowed(char c) { return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '.' || c == '_' || c == '-'; }

}  // namespace

absl::Status CheckTenant(std::string_view tenant) {
  if (tenant.size() <= kMaxTenantBytes && std::all_of(tenant.begin(), tenant.end(), IsAllowed)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("metadata ", kTenantKey, ": '", Excerpt(tenant),
                                                 "' is no tenant; give at most ", kMaxTenantBytes,
                                                 " of the characters a-z 0-9 . _ -"));
}

std::string TenantNamed(std::string_view name) {
  std::string tenant = absl::AsciiStrToLower(std::string(name.substr(0, kMaxTenantBytes)));
  std::replace_if(
      tenant.begin(), tenant.end(), [](char c) { return !IsAllowed(c); }, '-');
  return tenant;
}

}  // namespace polystill
