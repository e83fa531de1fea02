#include "cli/html_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace polystill::cli {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;

class HtmlReportTest : public testing::Test {
 protected:
  HtmlReportTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("html_report_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    programs_ = (folder_ / "build" / "release" / "bin").string();
    fs::create_directories(programs_);
    ::unsetenv("POLYSTILL_PYTHON");
  }
  ~HtmlReportTest() override {
    ::unsetenv("POLYSTILL_PYTHON");
    fs::remove_all(folder_);
  }
  std::string PythonPath(const std::string& place) { return "PYTHONPATH=" + (folder_ / place).string(); }

  fs::path folder_;
  std::string programs_;
};

TEST_F(HtmlReportTest, TakesTheSourceTreesModuleAndPython) {
  fs::create_directories(folder_ / "python" / "polystill_report");
  EXPECT_THAT(*HtmlReportCommand(programs_, "runs/a"),
              ElementsAre("/usr/bin/env", PythonPath("python"), "python3", "-m", "polystill_report", "runs/a"));
  fs::create_directories(folder_ / ".venv" / "bin");
  std::ofstream(folder_ / ".venv" / "bin" / "python") << "x";
  EXPECT_EQ(HtmlReportCommand(programs_, "runs/a")->at(2), (folder_ / ".venv" / "bin" / "python").string());
  ::setenv("POLYSTILL_PYTHON", "/opt/python", 1);
  EXPECT_EQ(HtmlReportCommand(programs_, "runs/a")->at(2), "/opt/python");
}

TEST_F(HtmlReportTest, TheInstalledModuleComesFirst) {
  fs::create_directories(folder_ / "python" / "polystill_report");
  fs::create_directories(folder_ / "build" / "release" / "share" / "polystill" / "python" / "polystill_report");
  EXPECT_EQ(HtmlReportCommand(programs_, "runs/a")->at(1), PythonPath("build/release/share/polystill/python"));
}

TEST_F(HtmlReportTest, AMissingModuleIsNamed) {
  const absl::Status status = HtmlReportCommand(programs_, "runs/a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr(programs_));
}

}  // namespace
}  // namespace polystill::cli
