#include "coordinator/address_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

class AddressFileTest : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove(path_); }

  const std::string path_ =
      absl::StrCat(testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name());
};

TEST_F(AddressFileTest, IsReadBack) {
  ASSERT_TRUE(WriteAddressFile(path_, {"10.7.0.1:7000", "a"}).ok());
  EXPECT_EQ(ReadAddressFile(path_).value(), (CoordinatorAddress{"10.7.0.1:7000", "a"}));
  ASSERT_TRUE(WriteFileAtomically(path_, "10.7.0.1:7000\n").ok());
  EXPECT_TRUE(absl::IsDataLoss(ReadAddressFile(path_).status()));
}

TEST_F(AddressFileTest, OnlyWhoseAddressItIsTakesItAway) {
  ASSERT_TRUE(WriteAddressFile(path_, {"10.7.0.1:7000", "a"}).ok());
  RemoveAddressFile(path_, {"10.7.0.2:7000", "a"});
  RemoveAddressFile(path_, {"10.7.0.1:7000", "b"});
  EXPECT_TRUE(ReadAddressFile(path_).ok());
  RemoveAddressFile(path_, {"10.7.0.1:7000", "a"});
  EXPECT_TRUE(absl::IsNotFound(ReadAddressFile(path_).status()));
  RemoveAddressFile(path_, {"10.7.0.1:7000", "a"});
}

}  // namespace
}  // namespace polystill::coordinator
