#include "soft_labels/name_lookup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>

namespace polystill::soft_labels {
namespace {

using testing::IsEmpty;
using testing::IsSupersetOf;
using testing::Not;

HostAddresses Found(const std::string& host) {
  auto promise = std::make_shared<std::promise<HostAddresses>>();
  auto future = promise->get_future();
  LookUp(host, [promise](HostAddresses addresses) { promise->set_value(std::move(addresses)); });
  return future.get();
}

TEST(NameLookup, FindsEachAddressOnce) {
  const HostAddresses found = Found("localhost");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(*found, Not(IsEmpty()));
  EXPECT_THAT((std::vector<std::string>{"127.0.0.1", "::1"}), IsSupersetOf(*found));
}

TEST(NameLookup, SaysWhyItFindsNone) {
  // Longer than a label of a name may be: no resolver is asked.
  const HostAddresses found = Found(std::string(100, 'x') + ".invalid");
  EXPECT_TRUE(absl::IsUnavailable(found.status())) << found.status();
  EXPECT_NE(found.status().message(), "");
}

}  // namespace
}  // namespace polystill::soft_labels
