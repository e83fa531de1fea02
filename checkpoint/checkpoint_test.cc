#include "checkpoint/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/publish.h"
#include "runtime/files.h"
#include "runtime/sha256.h"

namespace polystill::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class CheckpointTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "checkpoint_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }

  static CheckpointState StateAt(int64_t step) {
    CheckpointState state;
    state.job = "distilled";
    state.step = step;
    state.generation = 3;
    state.spec_digest = Sha256Hex("spec");
    state.plan_digest = Sha256Hex("plan");
    state.model = {{"w", at::full({4, 2}, static_cast<double>(step))}};
    state.optimizer = {{"w.first", at::full({4, 2}, 0.5f)}, {"w.step", at::scalar_tensor(step, at::kLong)}};
    return state;
  }

  void Save(int64_t step) { ASSERT_TRUE(SaveCheckpoint(folder_, StateAt(step)).ok()); }

  // Changes one byte of a file.
  void Damage(const std::string& path, size_t at) {
    std::string content = ReadFile(path).value();
    ASSERT_LT(at, content.size());
    content[at] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(path, content).ok());
  }

  std::string folder_;
};

TEST_F(CheckpointTest, ComesBackWhole) {
  const absl::StatusOr<std::string> digest = SaveCheckpoint(folder_, StateAt(120));
  ASSERT_TRUE(digest.ok()) << digest.status();
  const std::string path = CheckpointPath(folder_, 120, 3);
  EXPECT_EQ(path, folder_ + "/step-000000120-gen-3");
  EXPECT_EQ(*digest, Sha256File(path + "/MANIFEST.yaml").value());
  const absl::StatusOr<CheckpointState> state = LoadCheckpoint(path);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->job, "distilled");
  EXPECT_EQ(state->step, 120);
  EXPECT_EQ(state->generation, 3);
  EXPECT_EQ(state->spec_digest, Sha256Hex("spec"));
  EXPECT_EQ(state->plan_digest, Sha256Hex("plan"));
  EXPECT_TRUE(at::equal(state->model[0].second, at::full({4, 2}, 120.0)));
  ASSERT_EQ(state->optimizer.size(), 2);
  EXPECT_EQ(state->optimizer[1].second.item<int64_t>(), 120);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}), 1);
}

TEST_F(CheckpointTest, CountersProjectionsAndEarlyStoppingComeBack) {
  CheckpointState state = StateAt(7);
  (*state.counted.mutable_records())["no"] = 12;  // Norwegian, not a truth value
  state.counted.set_labels(12);
  state.counted.set_label_bytes(960);
  state.counted.set_data_wait_seconds(0.25);
  state.early_stopping.emplace();
  state.early_stopping->set_best(0.1 + 0.2);
  state.early_stopping->set_best_step(5);
  state.early_stopping->set_without_improvement(2);
  state.best = {{"w", at::full({4, 2}, 5.0)}};
  state.projections = {{"projection.0.0.weight", at::full({3, 2}, 4.0)}};
  ASSERT_TRUE(SaveCheckpoint(folder_, state).ok());
  const absl::StatusOr<CheckpointState> loaded = LoadCheckpoint(CheckpointPath(folder_, 7, 3));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->counted.records().at("no"), 12);
  EXPECT_EQ(loaded->counted.label_bytes(), 960);
  EXPECT_EQ(loaded->counted.data_wait_seconds(), 0.25);
  ASSERT_TRUE(loaded->early_stopping.has_value());
  EXPECT_EQ(loaded->early_stopping->best(), 0.1 + 0.2);
  EXPECT_EQ(loaded->early_stopping->without_improvement(), 2);
  ASSERT_EQ(loaded->projections.size(), 1);
  EXPECT_EQ(loaded->projections[0].first, "projection.0.0.weight");
  EXPECT_TRUE(at::equal(loaded->projections[0].second, state.projections[0].second));
  ASSERT_EQ(loaded->best.size(), 1);
  EXPECT_TRUE(at::equal(loaded->best[0].second, state.best[0].second));
}

TEST_F(CheckpointTest, StepZeroAndNoOptimiserCountToo) {
  CheckpointState state = StateAt(0);
  state.optimizer.clear();
  state.generation = 0;
  ASSERT_TRUE(SaveCheckpoint(folder_, state).ok());
  EXPECT_EQ(LoadCheckpoint(CheckpointPath(folder_, 0, 0))->step, 0);
}

// One flipped bit anywhere in any file, or a file cut or gone: never loaded.
TEST_F(CheckpointTest, TornFilesAreNamed) {
  const std::string path = CheckpointPath(folder_, 1, 3);
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "MANIFEST.yaml"}) {
    Save(1);
    const std::string file = path + "/" + name;
    const size_t size = fs::file_size(file);
    for (const size_t at : {size_t{0}, size / 2, size - 1}) {
      Damage(file, at);
      const absl::Status status = LoadCheckpoint(path).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
      EXPECT_THAT(status.ToString(), HasSubstr(file));
      Save(1);
    }
    fs::resize_file(file, size / 2);
    EXPECT_EQ(LoadCheckpoint(path).status().code(), absl::StatusCode::kDataLoss) << name;
    fs::remove(file);
    EXPECT_THAT(LoadCheckpoint(path).status().ToString(), HasSubstr(file));
  }
}

TEST_F(CheckpointTest, LaterVersionsAreRefusedAsSuch) {
  Save(1);
  const std::string file = CheckpointPath(folder_, 1, 3) + "/MANIFEST.yaml";
  const std::string body = "format: polystill.checkpoint/2\nnew_key: 1\n";
  ASSERT_TRUE(WriteFileAtomically(file, body + "sha256: " + Sha256Hex(body) + "\n").ok());
  const absl::Status status = LoadCheckpoint(CheckpointPath(folder_, 1, 3)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.ToString(), HasSubstr(":1: format: 'polystill.checkpoint/2' is not known"));
}

TEST_F(CheckpointTest, LatestPassesOverTornOnesAndSaysWhich) {
  EXPECT_FALSE(LatestCheckpoint(folder_).state.has_value());
  for (const int64_t step : std::initializer_list<int64_t>{5, 10, 1'000'000'000'000}) Save(step);
  fs::create_directories(folder_ + "/.step-000000020-gen-3.tmp-1");  // left by a process that died
  Damage(CheckpointPath(folder_, 1'000'000'000'000, 3) + "/model.safetensors", 100);
  const LatestCheckpointResult latest = LatestCheckpoint(folder_);
  ASSERT_TRUE(latest.state.has_value());
  EXPECT_EQ(latest.state->step, 10);
  EXPECT_EQ(latest.path, CheckpointPath(folder_, 10, 3));
  ASSERT_EQ(latest.refused.size(), 1);
  EXPECT_EQ(latest.refused[0].path, CheckpointPath(folder_, 1'000'000'000'000, 3));
  EXPECT_EQ(latest.refused[0].reason.code(), absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointTest, SavingAStepAgainReplacesItWithinAGeneration) {
  Save(7);
  CheckpointState other = StateAt(7);
  other.job = "other";
  ASSERT_TRUE(SaveCheckpoint(folder_, other).ok());
  EXPECT_EQ(LoadCheckpoint(CheckpointPath(folder_, 7, 3))->job, "other");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}), 1);
  other.generation = 4;
  ASSERT_TRUE(SaveCheckpoint(folder_, other).ok());
  EXPECT_EQ(LoadCheckpoint(CheckpointPath(folder_, 7, 3))->generation, 3);
  EXPECT_EQ(LoadCheckpoint(CheckpointPath(folder_, 7, 4))->generation, 4);
}

TEST_F(CheckpointTest, TheLatestIsOfTheLastGeneration) {
  Save(10);
  CheckpointState later = StateAt(8);
  later.generation = 4;
  ASSERT_TRUE(SaveCheckpoint(folder_, later).ok());
  EXPECT_EQ(LatestCheckpoint(folder_).path, CheckpointPath(folder_, 8, 4));
}

TEST(CheckpointNameTest, IsReadBack) {
  const CheckpointName name{120, 3};
  EXPECT_EQ(ParseCheckpointName("step-000000120-gen-3"), name);
  EXPECT_EQ(ParseCheckpointName(".step-000000120-gen-3.tmp-4711"), name);
  for (const char* other :
       {"", "step-000000120", "step--gen-3", "step-1-gen-", "step-1-gen-3x", ".step-1-gen-3", "best"}) {
    EXPECT_EQ(ParseCheckpointName(other), std::nullopt) << other;
  }
}

TEST_F(CheckpointTest, AFailedPublicationLeavesTheOldFolder) {
  Save(7);
  const std::string path = CheckpointPath(folder_, 7, 3);
  const absl::Status status = PublishFolder(
      path + "/", [](const std::string& temporary) { return absl::ResourceExhaustedError(temporary + ": disk full"); });
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(LoadCheckpoint(path).ok());
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator{}), 1);
}

TEST_F(CheckpointTest, ALoopOfLinksIsNamed) {
  fs::create_directories(folder_);
  fs::create_symlink("loop", folder_ + "/loop");
  const absl::Status status = PublishFolder(folder_ + "/loop", [](const std::string&) { return absl::OkStatus(); });
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.ToString(), HasSubstr(folder_ + "/loop"));
}

}  // namespace
}  // namespace polystill::checkpoint
