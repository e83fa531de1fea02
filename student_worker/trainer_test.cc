#include "student_worker/trainer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>

#include "checkpoint/checkpoint.h"
#include "collectives/rank_processes.h"
#include "models/package.h"
#include "student_worker/tiny_job.h"

namespace polystill::student_worker {
namespace {

using testing::HasSubstr;

constexpr int kRecords = 300;
constexpr int kSteps = 200;

std::string NewFolder() {
  std::string folder = testing::TempDir() + "trainer_test_XXXXXX";
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("mkdtemp");
  return folder;
}

class TrainerTest : public testing::Test {
 protected:
  TrainerTest() : folder_(NewFolder()), link_(folder_) {
    context_.host = "127.0.0.1";
    context_.link = &link_;
    context_.stop = stop_.get_token();
  }

  const std::string folder_;
  TinyLink link_;
  std::stop_source stop_;
  WorkerContext context_;
};

TEST_F(TrainerTest, LearnsAndLeavesAPackageAndACheckpoint) {
  WriteTinyCorpus(folder_, kRecords);
  std::vector<double> losses;
  link_.on_progress = [&](const auto& progress) { losses.push_back(progress.loss()); };
  const auto assignment = TinyTraining(folder_, 100);
  const auto done = Train(assignment, context_);
  ASSERT_TRUE(done.ok()) << done.status();
  ASSERT_EQ(losses.size(), 100);
  EXPECT_LT(losses.back(), 0.5 * losses.front());

  EXPECT_EQ(done->progress().step(), 100);
  int64_t records = 0;
  for (const auto& [language, count] : done->progress().records()) records += count;
  EXPECT_EQ(records, 100 * 16);

  const auto package = models::LoadPackage(assignment.job().package());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(models::WeightsDigest(*package->model), done->weights_digest());
  EXPECT_EQ(package->info.signature.labels(1), "high");
  const auto latest = checkpoint::LatestCheckpoint(assignment.job().checkpoints());
  ASSERT_TRUE(latest.state.has_value());
  EXPECT_EQ(latest.state->step, 100);
  EXPECT_EQ(latest.state->optimizer.back().second.item<float>(), 100);  // Adam's count
}

TEST_F(TrainerTest, WritesACheckpointEveryNSteps) {
  WriteTinyCorpus(folder_, kRecords);
  auto assignment = TinyTraining(folder_, 25);
  assignment.mutable_job()->set_checkpoint_every(10);
  ASSERT_TRUE(Train(assignment, context_).ok());
  for (const int step : {10, 20, 25}) {
    const auto state = checkpoint::LoadCheckpoint(checkpoint::CheckpointPath(assignment.job().checkpoints(), step));
    EXPECT_TRUE(state.ok()) << state.status();
  }
}

TEST_F(TrainerTest, StopsAtAStepBoundaryWithACheckpoint) {
  WriteTinyCorpus(folder_, kRecords);
  link_.on_progress = [&](const auto& progress) {
    if (progress.step() == 5) stop_.request_stop();
  };
  const auto assignment = TinyTraining(folder_, 1000);
  EXPECT_EQ(Train(assignment, context_).status().code(), absl::StatusCode::kCancelled);
  const auto latest = checkpoint::LatestCheckpoint(assignment.job().checkpoints());
  ASSERT_TRUE(latest.state.has_value());
  EXPECT_EQ(latest.state->step, 5);
}

TEST_F(TrainerTest, RefusesALossWithoutATeacher) {
  WriteTinyCorpus(folder_, kRecords);
  auto assignment = TinyTraining(folder_, 10);
  assignment.mutable_job()->mutable_losses(0)->set_kind(v1::LOSS_KIND_SOFT_LABEL);
  assignment.mutable_job()->mutable_losses(0)->set_teacher("english");
  const auto done = Train(assignment, context_);
  EXPECT_EQ(done.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(done.status().message()), HasSubstr("english"));
}

TEST_F(TrainerTest, SaysWhenTheGradientsAreNotFinite) {
  WriteTinyCorpus(folder_, kRecords);
  auto assignment = TinyTraining(folder_, 100);
  auto& optimizer = *assignment.mutable_job()->mutable_optimizer();
  optimizer.set_kind(v1::Optimizer::KIND_SGD);
  optimizer.set_clip_norm(0);
  optimizer.set_lr(1e30);
  const auto done = Train(assignment, context_);
  EXPECT_EQ(done.status().code(), absl::StatusCode::kFailedPrecondition) << done.status();
  EXPECT_THAT(std::string(done.status().message()), HasSubstr("step"));
}

// A rank whose first weights are not the others'; `root` holds the corpus.
int TrainApart(const collectives::Group::Options& options, const std::string& root) {
  auto assignment = TinyTraining(root, kSteps);
  assignment.set_rank(options.rank);
  assignment.set_world_size(options.world_size);
  assignment.set_store_host(options.store_host);
  assignment.set_store_port(options.store_port);
  assignment.set_store_prefix(options.store_prefix);
  assignment.mutable_job()->set_seed(options.rank);
  TinyLink link(root);
  const auto done = Train(assignment, {options.host, &link, nullptr, {}});
  std::printf("%s\n", done.status().ToString().c_str());
  return done.ok() ? 1 : 0;
}

TEST(Ranks, ReplicasThatAreApartAreFoundBeforeTheEnd) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  collectives::RankProcesses ranks("apart", 2, root);
  for (int rank = 0; rank < 2; ++rank) {
    std::string line = ranks.ReadLine(rank);
    while (line.starts_with("[")) line = ranks.ReadLine(rank);  // logs, and what Gloo says of its connections
    EXPECT_EQ(ranks.Wait(rank), 0);
    EXPECT_THAT(line, HasSubstr("replicas apart after step 100: rank 0 has weights"));
  }
}

}  // namespace
}  // namespace polystill::student_worker

int main(int argc, char** argv) {
  return polystill::collectives::RankTestMain(argc, argv, {{"apart", polystill::student_worker::TrainApart}});
}
