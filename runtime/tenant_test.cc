#include "runtime/tenant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace polystill {
namespace {

using testing::HasSubstr;

TEST(TenantTest, Check) {
  for (const std::string& tenant :
       {std::string(), std::string("run-7"), std::string("a.b_c-0"), std::string(64, 'z')}) {
    EXPECT_TRUE(CheckTenant(tenant).ok()) << tenant;
  }
  for (const std::string& tenant :
       {std::string("Run"), std::string("a b"), std::string("ä"), std::string("a\0b", 3), std::string(65, 'z')}) {
    const absl::Status status = CheckTenant(tenant);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << tenant;
    EXPECT_THAT(std::string(status.message()), HasSubstr("polystill-tenant"));
  }
}

TEST(TenantTest, ANameBecomesATenant) {
  EXPECT_EQ(TenantNamed("package_topics.2"), "package_topics.2");
  EXPECT_EQ(TenantNamed("My Run/7"), "my-run-7");
  EXPECT_EQ(TenantNamed(std::string(100, 'A')), std::string(64, 'a'));
  EXPECT_TRUE(CheckTenant(TenantNamed("\xff\xc3\xa4\n")).ok());
}

}  // namespace
}  // namespace polystill
