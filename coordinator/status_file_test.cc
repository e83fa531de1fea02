#include "coordinator/status_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

class StatusFileTest : public testing::Test {
 protected:
  StatusFileTest() {
    path_ = testing::TempDir() + "status_file_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove(path_);
    status_.set_run("topics");
    status_.set_state(v1::RunStatus::STATE_RUNNING);
    auto& stage = *status_.add_stages();
    stage.set_name("distilled");
    stage.set_total(100);
    stage.set_loss(std::numeric_limits<double>::quiet_NaN());
    (*stage.mutable_records_by_language())["de"] = 7;
  }
  ~StatusFileTest() override { std::filesystem::remove(path_); }

  int64_t DoneInFile() { return ReadStatusFile(path_)->stages(0).done(); }

  std::string path_;
  v1::RunStatus status_;
};

TEST_F(StatusFileTest, ComesBackWhole) {
  StatusFile(path_).Observe(status_);
  const auto read = ReadStatusFile(path_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->run(), "topics");
  EXPECT_TRUE(std::isnan(read->stages(0).loss()));
  EXPECT_EQ(read->stages(0).records_by_language().at("de"), 7);
}

TEST_F(StatusFileTest, IsWrittenWhenItIsWorthIt) {
  StatusFile file(path_);
  file.Observe(status_);
  status_.mutable_stages(0)->set_done(5);
  file.Observe(status_);
  EXPECT_EQ(DoneInFile(), 0);
  status_.mutable_stages(0)->set_done(6);
  file.Observe(status_);
  EXPECT_EQ(DoneInFile(), 6);
  status_.mutable_stages(0)->set_done(7);
  status_.set_state(v1::RunStatus::STATE_STOPPED);
  file.Observe(status_);
  EXPECT_EQ(DoneInFile(), 7);
}

TEST_F(StatusFileTest, WhatIsNoStatusIsToldByName) {
  EXPECT_EQ(ReadStatusFile(path_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(path_, "{\"state\": 1, ").ok());
  const absl::Status torn = ReadStatusFile(path_).status();
  EXPECT_EQ(torn.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(torn.message()), testing::HasSubstr(path_));
}

}  // namespace
}  // namespace polystill::coordinator
