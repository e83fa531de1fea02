#include "checkpoint/async_writer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <utility>
#include <vector>

#include "runtime/files.h"

namespace polystill::checkpoint {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class AsyncWriterTest : public testing::Test {
 protected:
  AsyncWriterTest() {
    folder_ = testing::TempDir() + "async_writer_test-" + testing::UnitTest::GetInstance()->current_test_info()->name();
    fs::remove_all(folder_);
  }
  ~AsyncWriterTest() override { fs::remove_all(folder_); }

  static CheckpointState StateAt(int64_t step, const at::Tensor& weights) {
    CheckpointState state;
    state.job = "distilled";
    state.step = step;
    state.model = state.optimizer = state.best = state.projections = {{"w", weights}};
    return state;
  }

  std::string folder_;
};

TEST_F(AsyncWriterTest, HoldsWhatTheTensorsWereWhenItWasCalled) {
  AsyncWriter writer(folder_);
  std::promise<void> go_on;
  std::vector<std::string> written;
  at::Tensor weights = at::ones({3});
  const auto on_written = [&](const std::string& path) {
    go_on.get_future().wait();
    written.push_back(path);
  };
  ASSERT_TRUE(writer.Write(StateAt(5, weights), on_written).ok());
  weights.fill_(2);  // the training goes on
  EXPECT_TRUE(writer.Poll().ok());
  EXPECT_THAT(written, IsEmpty());
  go_on.set_value();
  ASSERT_TRUE(writer.Flush().ok());
  EXPECT_THAT(written, ElementsAre(CheckpointPath(folder_, 5, 0)));
  const auto state = LoadCheckpoint(CheckpointPath(folder_, 5, 0));
  ASSERT_TRUE(state.ok()) << state.status();
  for (const NamedTensors* tensors : {&state->model, &state->optimizer, &state->best, &state->projections}) {
    ASSERT_EQ(tensors->size(), 1u);
    EXPECT_TRUE(at::equal(tensors->at(0).second, at::ones({3})));
  }
}

TEST_F(AsyncWriterTest, OneWriteAfterTheOther) {
  AsyncWriter writer(folder_);
  std::vector<int64_t> written;
  for (const int64_t step : {1, 2, 3}) {
    const auto on_written = [&written, step](const std::string&) { written.push_back(step); };
    ASSERT_TRUE(writer.Write(StateAt(step, at::ones({1})), on_written).ok());
  }
  ASSERT_TRUE(writer.Flush().ok());
  EXPECT_THAT(written, ElementsAre(1, 2, 3));
}

TEST_F(AsyncWriterTest, AFailedWriteIsToldOnceAndNamesTheFile) {
  ASSERT_TRUE(WriteFileAtomically(folder_, "a file where the folder should be").ok());
  AsyncWriter writer(folder_);
  const auto on_written = [](const std::string&) { FAIL() << "nothing was written"; };
  ASSERT_TRUE(writer.Write(StateAt(1, at::ones({1})), on_written).ok());
  const absl::Status status = writer.Flush();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_));
  EXPECT_TRUE(writer.Poll().ok());
}

}  // namespace
}  // namespace polystill::checkpoint
