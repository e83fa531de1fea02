#include "coordinator/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "coordinator/sqlite.h"

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
    EXPECT_EQ(*store->LastGeneration(), StateStore::Generation());
    EXPECT_EQ(*store->WantedWorkers(), 0);
    ASSERT_TRUE(store->PutSpec(spec).ok());
    ASSERT_TRUE(store->PutGeneration({1, "teacher:english", {"a", "b", "c"}}).ok());
    ASSERT_TRUE(store->PutGeneration({2, "distilled", {"c", "a"}}).ok());
    ASSERT_TRUE(store->PutWantedWorkers(3).ok());
    ASSERT_TRUE(store->AddSegment("distilled", segment).ok());
    ASSERT_TRUE(store->PutInput("teachers.0.package", "p1").ok());
    ASSERT_TRUE(store->PutInput("tokenizer.path", "t1").ok());
    ASSERT_TRUE(store->FinishJob("teacher:english", "ab", {10, 1, "checkpoints/t", "ab"}).ok());
    ASSERT_TRUE(store->FinishJob("distilled", "cd", {20, 2, "checkpoints/d", "cd"}).ok());
    ASSERT_TRUE(store->FinishJob("evaluate", "", {}).ok());
  }
  auto store = Open();
  EXPECT_EQ(store->Spec()->name(), "topics");
  EXPECT_EQ(*store->LastGeneration(), (StateStore::Generation{2, "distilled", {"c", "a"}}));
  EXPECT_EQ(*store->WantedWorkers(), 3);
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
    ASSERT_TRUE(store->DropCheckpoint("distilled", "a").ok());
    v1::RunStatus::Stage stage;
    stage.set_name("distilled");
    for (const int64_t labels : {100, 200}) {
      stage.set_labels(labels);
      ASSERT_TRUE(store->AdmitCheckpoint("distilled", {20, 1, "b", "w20"}, stage).ok());
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
  ASSERT_TRUE((*opened)->PutGeneration({5, "distilled", {"a"}}).ok());
  v1::RunSpec spec;
  spec.set_name(std::string(256 << 10, 'x'));
  const absl::Status status = (*opened)->PutSpec(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_EQ((*opened)->LastGeneration()->number, 5);
}

TEST_F(StateStoreTest, AnEarlierTermChangesNothing) {
  const auto old = Open();
  ASSERT_TRUE(old->PutGeneration({5, "distilled", {"a"}}).ok());
  EXPECT_TRUE(old->CheckTerm().ok());
  const auto later = Open();
  for (const absl::Status& status :
       {old->CheckTerm(), old->PutSpec({}), old->PutGeneration({6, "distilled", {"b"}}), old->PutWantedWorkers(3),
        old->AddSegment("distilled", {}), old->PutInput("tokenizer.path", "x"),
        old->AdmitCheckpoint("distilled", {10, 1, "a", "w10"}), old->DropCheckpoint("distilled", "a"),
        old->FinishJob("distilled", "w", {})}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("a later coordinator has taken over: its term is 2"));
  }
  EXPECT_TRUE(later->CheckTerm().ok());
  EXPECT_EQ(*later->LastGeneration(), (StateStore::Generation{5, "distilled", {"a"}}));
  EXPECT_THAT(*later->FinishedJobs(), testing::IsEmpty());
  EXPECT_THAT(*later->Checkpoints("distilled"), testing::IsEmpty());
  EXPECT_THAT(*later->Inputs(), testing::IsEmpty());
}

TEST_F(StateStoreTest, AFileOfTheFirstFormatIsTakenOver) {
  ASSERT_TRUE(Open()->PutGeneration({5, "", {}}).ok());
  Sqlite file(path_);
  ASSERT_TRUE(file.Open().ok());
  ASSERT_TRUE(file.Execute("DROP TABLE members").ok());
  ASSERT_TRUE(file.Execute("PRAGMA user_version=1").ok());
  EXPECT_EQ(*Open()->LastGeneration(), (StateStore::Generation{5, "", {}}));
  ASSERT_TRUE(file.Execute("PRAGMA user_version=3").ok());
  EXPECT_EQ(StateStore::Open(path_).status().code(), absl::StatusCode::kFailedPrecondition);
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
