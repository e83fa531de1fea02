#include "coordinator/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("run_folder_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
  }
  ~RunFolderTest() override { fs::remove_all(folder_); }

  void Touch(const std::string& name) {
    fs::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << name;
  }
  absl::StatusOr<RunFolder> Open(bool overwrite = false, const std::vector<RunFolder::Input>& inputs = {}) {
    return RunFolder::Open(folder_.string(), overwrite, inputs);
  }

  fs::path folder_;
};

TEST_F(RunFolderTest, MadeAndLocked) {
  {
    const auto first = Open();
    ASSERT_TRUE(first.ok()) << first.status();
    const auto second = Open();
    EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(second.status().message()), HasSubstr(folder_.string()));
    EXPECT_THAT(std::string(Open(/*overwrite=*/true).status().message()), HasSubstr("another run"));
  }
  EXPECT_TRUE(Open().ok());
}

TEST_F(RunFolderTest, AnEarlierRunIsKeptUnlessAsked) {
  Touch("coordinator.sqlite");
  Touch("report.json");
  const absl::Status status = Open().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--overwrite"));
  EXPECT_TRUE(fs::exists(folder_ / "report.json"));
}

TEST_F(RunFolderTest, ReopenNeedsARunThatNobodyWorksOn) {
  const absl::Status none = RunFolder::Reopen(folder_.string()).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr(folder_.string() + ": holds no run to resume"));
  EXPECT_FALSE(fs::exists(folder_));
  Touch("coordinator.sqlite");
  const auto first = RunFolder::Reopen(folder_.string());
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_THAT(std::string(RunFolder::Reopen(folder_.string()).status().message()), HasSubstr("another run"));
  EXPECT_TRUE(fs::exists(folder_ / "coordinator.sqlite"));
}

TEST_F(RunFolderTest, OverwriteDeletesTheRunsOwnFilesOnly) {
  const std::vector<std::string> own = {"coordinator.sqlite",
                                        "coordinator.sqlite-wal",
                                        "run.yaml",
                                        "report.json",
                                        "status.json",
                                        "coordinator.address",
                                        "events/distilled/events.out.tfevents.1",
                                        "report.html",
                                        "latency.json",
                                        "predictions.parquet",
                                        "tokenizer/tokenizer.model",
                                        "tokenizer/tokenizer.json",
                                        "models/gold/teacher.yaml",
                                        "models/gold_all/teacher.yaml",
                                        "checkpoints/pseudo_label/step-000000010/w",
                                        "checkpoints/teacher-english/step-000000010/w"};
  const std::vector<std::string> others = {"notes.txt", "models/mine/weights", "logs/coordinator-0.log",
                                           "tokenizer/vocabulary.txt"};
  for (const std::string& name : own) Touch(name);
  for (const std::string& name : others) Touch(name);
  const auto opened = Open(/*overwrite=*/true);
  ASSERT_TRUE(opened.ok()) << opened.status();
  for (const std::string& name : own) EXPECT_FALSE(fs::exists(folder_ / name)) << name;
  for (const std::string& name : others) EXPECT_TRUE(fs::exists(folder_ / name)) << name;
}

TEST_F(RunFolderTest, OverwriteDoesNotDeleteWhatTheRunReads) {
  Touch("coordinator.sqlite");
  Touch("models/teacher-english/teacher.yaml");
  const std::string package = (folder_ / "models" / "teacher-english").string();
  for (const std::string& named : {package, "file://" + package}) {
    const absl::Status status = Open(/*overwrite=*/true, {{"teachers.0.package", named}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << named;
    EXPECT_THAT(std::string(status.message()), HasSubstr("teachers.0.package"));
  }
  EXPECT_TRUE(fs::exists(package));
  EXPECT_TRUE(fs::exists(folder_ / "coordinator.sqlite"));
}

TEST_F(RunFolderTest, ALoopOfLinksIsNamed) {
  Touch("coordinator.sqlite");
  fs::create_symlink("run.yaml", folder_ / "run.yaml");
  const absl::Status run_file = Open(/*overwrite=*/true).status();
  EXPECT_FALSE(run_file.ok());
  EXPECT_THAT(std::string(run_file.message()), HasSubstr("run.yaml"));
  fs::remove(folder_ / "run.yaml");

  Touch("models/gold/teacher.yaml");
  fs::create_symlink("input", folder_ / "input");
  const absl::Status input =
      Open(/*overwrite=*/true, {{"corpus.path", (folder_ / "input" / "a.jsonl").string()}}).status();
  EXPECT_FALSE(input.ok());
  EXPECT_THAT(std::string(input.message()), HasSubstr("input"));
  EXPECT_TRUE(fs::exists(folder_ / "models/gold/teacher.yaml"));
  fs::remove(folder_ / "input");

  fs::remove_all(folder_ / "models");
  fs::create_symlink("models", folder_ / "models");
  EXPECT_THAT(std::string(Open(/*overwrite=*/true).status().message()), HasSubstr("models"));
  EXPECT_TRUE(fs::exists(folder_ / "coordinator.sqlite"));
}

}  // namespace
}  // namespace polystill::coordinator
