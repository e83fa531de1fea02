#include "coordinator/job_curves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

TEST(Crc32c, OfRfc3720) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8A9136AA);
  EXPECT_EQ(Crc32c(std::string(32, '\xFF')), 0x62A8AB43);
  EXPECT_EQ(Crc32c("123456789"), 0xE3069283);
  EXPECT_EQ(Crc32c(""), 0u);
}

class JobCurvesTest : public testing::Test {
 protected:
  JobCurvesTest() {
    folder_ = testing::TempDir() + "job_curves_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    auto& index = *status_.add_stages();
    index.set_name("index");
    index.set_done(100);
    index.set_loss(std::numeric_limits<double>::quiet_NaN());
    stage_ = status_.add_stages();
    stage_->set_name("teacher:english");
    stage_->set_loss(std::numeric_limits<double>::quiet_NaN());
  }
  ~JobCurvesTest() override { fs::remove_all(folder_); }

  void Set(int64_t done, double loss, double seconds) {
    stage_->set_done(done);
    stage_->set_loss(loss);
    stage_->set_learning_rate(0.5);
    stage_->set_records(done * 10);
    stage_->set_seconds(seconds);
    (*stage_->mutable_records_by_language())["de"] = done * 10;
  }

  // "step tag=value", in the file's order; tests/test_event_files.py checks the framing with TensorBoard's own reader.
  std::vector<std::string> Events() {
    std::vector<std::string> lines;
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      if (!entry.is_regular_file()) continue;
      const std::string bytes = ReadFile(entry.path().string()).value();
      EXPECT_NE(bytes.find("data_wait_seconds\x15"), std::string::npos) << "a zero is left out";
      for (size_t at = 0; at < bytes.size();) {
        const auto size = static_cast<uint8_t>(bytes[at]);
        v1::TensorBoardEvent event;
        EXPECT_TRUE(event.ParseFromString(bytes.substr(at + 12, size)));
        for (const auto& value : event.summary().value()) {
          lines.push_back(absl::StrCat(event.step(), " ", value.tag(), "=", value.simple_value()));
        }
        if (event.has_session_log()) lines.push_back(absl::StrCat(event.step(), " start"));
        at += 12 + size + 4;
      }
    }
    return lines;
  }

  std::string folder_;
  v1::RunStatus status_;
  v1::RunStatus::Stage* stage_;
};

TEST_F(JobCurvesTest, OnePointForEachStepThatIsSeen) {
  JobCurves curves(folder_, 1, {});
  curves.Observe(status_, 1000);
  EXPECT_FALSE(fs::exists(folder_));
  Set(2, 1.5, 1);
  curves.Observe(status_, 1001);
  curves.Observe(status_, 1002);
  Set(6, 1.25, 3);
  stage_->set_validation(0.75);
  stage_->set_validation_step(5);
  curves.Observe(status_, 1003);
  stage_->set_finished(true);
  curves.Observe(status_, 1004);
  EXPECT_TRUE(fs::exists(folder_ + "/teacher-english/events.out.tfevents.0000001001.coordinator.1"));
  EXPECT_THAT(Events(), ElementsAre("2 start", "2 loss=1.5", "2 learning_rate=0.5", "2 data_wait_seconds=0",
                                    "2 records/de=20", "6 loss=1.25", "6 learning_rate=0.5", "6 data_wait_seconds=0",
                                    "6 records_per_second=20", "6 records/de=60", "5 validation=0.75"));
}

TEST_F(JobCurvesTest, WhatAnEarlierProcessFinishedIsLeftAlone) {
  Set(10, 1.0, 5);
  stage_->set_finished(true);
  JobCurves(folder_, 2, {"teacher:english"}).Observe(status_, 1000);
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(JobCurvesTest, AFolderThatCannotBeWrittenHarmsNothing) {
  ASSERT_TRUE(WriteFileAtomically(folder_, "a file").ok());
  JobCurves curves(folder_, 1, {});
  Set(2, 1.5, 1);
  curves.Observe(status_, 1000);
  curves.Observe(status_, 1001);
  EXPECT_EQ(*ReadFile(folder_), "a file");
}

}  // namespace
}  // namespace polystill::coordinator
