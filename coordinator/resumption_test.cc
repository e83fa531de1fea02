#include "coordinator/resumption.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "coordinator/jobs.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

// A run of two trainings, "teacher:english" and "distilled"; which of its files are damaged is up to the test.
class ResumptionTest : public testing::Test {
 protected:
  ResumptionTest() {
    folder_ = testing::TempDir() + "resumption_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    const std::string yaml = absl::StrCat(R"(version: 1
name: x
corpus: {path: c, labels: [a, b]}
tokenizer: {}
teachers: [{name: english, train: {}}]
student: {losses: [{kind: soft_label, teacher: english}]}
output: )",
                                          folder_, "\n");
    EXPECT_TRUE(ReadYaml(yaml, "run.yaml", {}, &spec_).ok());
    store_ = std::move(*StateStore::Open(folder_ + "/coordinator.sqlite"));
    verifiers_.checkpoint = [this](const std::string& path) -> absl::StatusOr<StateStore::Checkpoint> {
      RETURN_IF_ERROR(Look(path));
      return held_.at(path);
    };
    verifiers_.package = [this](const std::string& path, const std::string&) { return Look(path); };
  }
  ~ResumptionTest() override { fs::remove_all(folder_); }

  absl::Status Look(const std::string& path) {
    return damaged_.contains(fs::path(path).filename().string()) ? absl::DataLossError(path + ": torn")
                                                                 : absl::OkStatus();
  }
  void Admit(const std::string& job, int64_t step) {
    const std::string path = absl::StrCat(folder_, "/checkpoints/", job, "/", step);
    fs::create_directories(path);
    held_[path] = {step, 1, path, "w"};
    ASSERT_TRUE(store_->AdmitCheckpoint(job, held_[path]).ok());
  }
  Resumption Find() {
    const auto found = FindResumption(spec_, verifiers_, store_.get());
    EXPECT_TRUE(found.ok()) << found.status();
    return *found;
  }
  static std::vector<int64_t> StepsOf(const Resumption& resumption, const std::string& job) {
    std::vector<int64_t> steps;
    const auto found = resumption.checkpoints.find(job);
    if (found == resumption.checkpoints.end()) return steps;
    for (const auto& checkpoint : found->second) steps.push_back(checkpoint.step);
    return steps;
  }

  std::string folder_;
  v1::RunSpec spec_;
  std::set<std::string> damaged_;
  // Folder -> the checkpoint in it.
  std::map<std::string, StateStore::Checkpoint> held_;
  std::unique_ptr<StateStore> store_;
  Verifiers verifiers_;
};

TEST_F(ResumptionTest, NothingWasDoneYet) {
  const Resumption found = Find();
  EXPECT_THAT(found.finished, IsEmpty());
  EXPECT_THAT(found.checkpoints, IsEmpty());
}

TEST_F(ResumptionTest, FinishedJobsAreSkippedAndTheNewestCheckpointIsTaken) {
  ASSERT_TRUE(store_->FinishJob("tokenizer", "t", {}).ok());
  ASSERT_TRUE(store_->FinishJob("teacher:english", "w1", {}).ok());
  ASSERT_TRUE(store_->FinishJob("evaluate", "", {}).ok());
  Admit("distilled", 10);
  Admit("distilled", 20);
  const Resumption found = Find();
  // The evaluation is done again.
  EXPECT_THAT(found.finished, ElementsAre(Pair("teacher:english", "w1"), Pair("tokenizer", "t")));
  EXPECT_THAT(StepsOf(found, "distilled"), ElementsAre(10, 20));
}

TEST_F(ResumptionTest, TornCheckpointsArePassedOverForGood) {
  for (const int64_t step : {10, 20, 30}) Admit("distilled", step);
  damaged_ = {"20", "30"};
  EXPECT_THAT(StepsOf(Find(), "distilled"), ElementsAre(10));
  damaged_ = {};
  EXPECT_THAT(StepsOf(Find(), "distilled"), ElementsAre(10));
  damaged_ = {"10"};
  EXPECT_THAT(Find().checkpoints, IsEmpty());
}

TEST_F(ResumptionTest, WhatIsNotWhatWasAdmittedIsPassedOver) {
  const auto spoil = [this](int64_t step) -> StateStore::Checkpoint& {
    return held_.at(absl::StrCat(folder_, "/checkpoints/distilled/", step));
  };
  for (const int64_t step : {10, 20, 30, 40}) Admit("distilled", step);
  spoil(20).digest = "another";
  spoil(30).generation = 2;
  spoil(40).step = 30;
  EXPECT_THAT(StepsOf(Find(), "distilled"), ElementsAre(10));
}

TEST_F(ResumptionTest, AFinishedJobWhosePackageIsDamagedGoesOnFromItsLastCheckpoint) {
  ASSERT_TRUE(store_->FinishJob("teacher:english", "w1", {}).ok());
  Admit("teacher:english", 40);
  damaged_ = {"teacher-english"};
  const Resumption found = Find();
  EXPECT_THAT(found.finished, IsEmpty());
  EXPECT_THAT(StepsOf(found, "teacher:english"), ElementsAre(40));
}

TEST_F(ResumptionTest, WhatWasNeverAdmittedIsDeleted) {
  Admit("distilled", 10);
  const std::string checkpoints = folder_ + "/checkpoints/distilled";
  fs::create_directories(checkpoints + "/20");
  fs::create_directories(checkpoints + "/.30.tmp-77");
  ASSERT_TRUE(store_->PutGeneration({3, "distilled", {"a"}}).ok());
  fs::create_directories(checkpoints + "/step-000000020-gen-2");
  fs::create_directories(checkpoints + "/.step-000000020-gen-2.tmp-77");
  fs::create_directories(checkpoints + "/step-000000020-gen-3");
  fs::create_directories(checkpoints + "/.step-000000030-gen-3.tmp-77");
  Find();
  EXPECT_FALSE(fs::exists(checkpoints + "/step-000000020-gen-2"));
  EXPECT_FALSE(fs::exists(checkpoints + "/.step-000000020-gen-2.tmp-77"));
  EXPECT_TRUE(fs::exists(checkpoints + "/step-000000020-gen-3")) << "its workers may be at work still";
  EXPECT_TRUE(fs::exists(checkpoints + "/.step-000000030-gen-3.tmp-77"));
  EXPECT_TRUE(fs::exists(checkpoints + "/10"));
  EXPECT_FALSE(fs::exists(checkpoints + "/20"));
  EXPECT_FALSE(fs::exists(checkpoints + "/.30.tmp-77"));
}

TEST_F(ResumptionTest, AnotherCorpusIsNamedAsTheReason) {
  v1::PlanSegment segment;
  segment.set_index_digest("old");
  segment.set_batch_size(8);
  ASSERT_TRUE(store_->AddSegment("distilled", segment).ok());
  const Resumption found = Find();
  EXPECT_EQ(PlanChange(found, "distilled", segment), "");
  EXPECT_EQ(PlanChange(found, "gold", segment), "");
  segment.set_index_digest("new");
  EXPECT_THAT(PlanChange(found, "distilled", segment), HasSubstr("the corpus has changed"));
  segment.set_index_digest("old");
  segment.set_batch_size(9);
  EXPECT_THAT(PlanChange(found, "distilled", segment), HasSubstr("the plan of distilled"));
}

TEST_F(ResumptionTest, AnInputThatChangedIsNamedWhileSomethingIsLeftToDoWithIt) {
  ASSERT_TRUE(store_->FinishJob("teacher:english", "w1", {}).ok());
  ASSERT_TRUE(store_->PutInput("teachers.0.package", "old").ok());
  const Resumption found = Find();
  EXPECT_EQ(InputChange(found, {"teachers.0.package", "p", {"distilled"}, "old"}), "");
  EXPECT_EQ(InputChange(found, {"tokenizer.path", "t", {"distilled"}, "new"}), "") << "never recorded";
  EXPECT_EQ(InputChange(found, {"teachers.0.package", "p", {"teacher:english"}, "new"}), "") << "done";
  EXPECT_THAT(InputChange(found, {"teachers.0.package", "p", {"teacher:english", "distilled"}, "new"}),
              testing::StartsWith("teachers.0.package: p has changed since the run began: its SHA-256 was old, now it "
                                  "is new, and distilled is still to be done with it"));
}

}  // namespace
}  // namespace polystill::coordinator
