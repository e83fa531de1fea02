#include "runtime/files.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "runtime/sha256.h"

namespace polystill {
namespace {

namespace fs = std::filesystem;

class FilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "files_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  std::string folder_;
};

TEST_F(FilesTest, WritesWholeAndLeavesNoTemporaryFile) {
  const std::string path = folder_ + "/a/b";
  ASSERT_TRUE(WriteFileAtomically(path, "old").ok());
  ASSERT_TRUE(WriteFileAtomically(path, "new content").ok());
  EXPECT_EQ(ReadFile(path).value(), "new content");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ + "/a"), fs::directory_iterator{}), 1);
}

TEST_F(FilesTest, FullDiskIsNamedAndKeepsTheOldFile) {
  const absl::Status status = WriteFileAtomically("/dev/full/x", "content");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;  // not a folder
  const absl::Status full = FileError(ENOSPC, "/data/x", "write");
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(std::string(full.message()).find("/data/x"), std::string::npos);
}

TEST_F(FilesTest, ReadNamesWhatIsWrong) {
  EXPECT_EQ(ReadFile(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/big", std::string(100, 'x')).ok());
  EXPECT_EQ(ReadFile(folder_ + "/big", 99).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(ReadFile(folder_).ok());
}

// FIPS 180-4, appendix B.1.
TEST_F(FilesTest, Sha256MatchesTheStandard) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  ASSERT_TRUE(WriteFileAtomically(folder_ + "/abc", "abc").ok());
  EXPECT_EQ(Sha256File(folder_ + "/abc").value(), Sha256Hex("abc"));
  EXPECT_EQ(Sha256File(folder_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace polystill
