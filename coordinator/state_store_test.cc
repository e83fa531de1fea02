#include "coordinator/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class StateStoreTest : public testing::Test {
 protected:
  StateStoreTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("state_store_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    path_ = (folder_ / "coordinator.sqlite").string();
  }
  ~StateStoreTest() override { fs::remove_all(folder_); }

  std::unique_ptr<StateStore> Open() {
    auto store = StateStore::Open(path_);
    EXPECT_TRUE(store.ok()) << store.status();
    return std::move(*store);
  }

  fs::path folder_;
  std::string path_;
};

TEST_F(StateStoreTest, EveryOpenBeginsATerm) {
  EXPECT_EQ(Open()->term(), 1);
  EXPECT_EQ(Open()->term(), 2);
  EXPECT_EQ(Open()->term(), 3);
}

TEST_F(StateStoreTest, EverythingSurvivesReopening) {
  v1::RunSpec spec;
  spec.set_name("topics");
  v1::PlanSegment segment;
  segment.set_batch_size(64);
  segment.set_first_step(7);
  {
    auto store = Open();
    EXPECT_EQ(store->Spec().status().code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(*store->Generation(), 0);
    ASSERT_TRUE(store->PutSpec(spec).ok());
    ASSERT_TRUE(store->PutGeneration(1).ok());
    ASSERT_TRUE(store->PutGeneration(2).ok());
    ASSERT_TRUE(store->AddSegment("distilled", segment).ok());
    ASSERT_TRUE(store->PutInput("teachers.0.package", "p1").ok());
    ASSERT_TRUE(store->PutInput("tokenizer.path", "t1").ok());
    ASSERT_TRUE(store->FinishJob("teacher:english", "ab", {10, 1, "checkpoints/t", "ab"}).ok());
    ASSERT_TRUE(store->FinishJob("distilled", "cd", {20, 2, "checkpoints/d", "cd"}).ok());
    ASSERT_TRUE(store->FinishJob("evaluate", "", {}).ok());
  }
  auto store = Open();
  EXPECT_EQ(store->Spec()->name(), "topics");
  EXPECT_EQ(*store->Generation(), 2);
  const auto segments = store->Segments("distilled");
  ASSERT_TRUE(segments.ok()) << segments.status();
  ASSERT_EQ(segments->size(), 1u);
  EXPECT_EQ(segments->front().batch_size(), 64);
  EXPECT_TRUE(store->Segments("gold")->empty());
  EXPECT_THAT(*store->Inputs(),
              ElementsAre(testing::Pair("teachers.0.package", "p1"), testing::Pair("tokenizer.path", "t1")));
  EXPECT_THAT(*store->FinishedJobs(),
              ElementsAre(StateStore::FinishedJob{"teacher:english", "ab"}, StateStore::FinishedJob{"distilled", "cd"},
                          StateStore::FinishedJob{"evaluate", ""}));
  EXPECT_THAT(*store->Checkpoints("distilled"), ElementsAre(StateStore::Checkpoint{20, 2, "checkpoints/d", "cd"}));
  EXPECT_TRUE(store->Checkpoints("evaluate")->empty());
}

TEST_F(StateStoreTest, CheckpointsAreAdmittedAndDroppedAndStagesAreReplaced) {
  {
    auto store = Open();
    ASSERT_TRUE(store->AdmitCheckpoint("distilled", {10, 1, "a", "w10"}).ok());
    ASSERT_TRUE(store->AdmitCheckpoint("distilled", {20, 1, "b", "w20"}).ok());
    // What the job ends with are other weights, those of its best step.
    ASSERT_TRUE(store->FinishJob("distilled", "best", {20, 1, "b", "best"}).ok());
    ASSERT_TRUE(store->DropCheckpoint("distilled", 10).ok());
    v1::RunStatus::Stage stage;
    stage.set_name("distilled");
    for (const int64_t labels : {100, 200}) {
      stage.set_labels(labels);
      ASSERT_TRUE(store->PutStage(stage).ok());
    }
  }
  auto store = Open();
  EXPECT_THAT(*store->Checkpoints("distilled"), ElementsAre(StateStore::Checkpoint{20, 1, "b", "w20"}));
  const auto stages = store->Stages();
  ASSERT_TRUE(stages.ok()) << stages.status();
  ASSERT_EQ(stages->size(), 1u);
  EXPECT_EQ(stages->front().labels(), 200);
}

TEST_F(StateStoreTest, FullDiskNamesTheFileAndLeavesTheOldState) {
  auto opened = StateStore::Open(path_, {.max_bytes = 64 << 10});
  ASSERT_TRUE(opened.ok()) << opened.status();
  ASSERT_TRUE((*opened)->PutGeneration(5).ok());
  v1::RunSpec spec;
  spec.set_name(std::string(256 << 10, 'x'));
  const absl::Status status = (*opened)->PutSpec(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_EQ(*(*opened)->Generation(), 5);
}

TEST_F(StateStoreTest, DamagedFileIsNamed) {
  std::ofstream(path_) << std::string(8192, 'x');
  const absl::Status status = StateStore::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--overwrite"));
}

TEST_F(StateStoreTest, AFolderThatIsNotThereIsNamed) {
  const std::string path = (folder_ / "missing" / "coordinator.sqlite").string();
  const absl::Status status = StateStore::Open(path).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

}  // namespace
}  // namespace polystill::coordinator
