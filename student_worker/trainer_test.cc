#include "student_worker/trainer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

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
  const auto assignment = TinyTraining(folder_, 100'000);
  EXPECT_EQ(Train(assignment, context_).status().code(), absl::StatusCode::kCancelled);
  const auto latest = checkpoint::LatestCheckpoint(assignment.job().checkpoints());
  ASSERT_TRUE(latest.state.has_value());
  // The ranks agree at their next roll call, half a second's steps later at most.
  EXPECT_GE(latest.state->step, 5);
  EXPECT_LT(latest.state->step, 100'000);
  ASSERT_THAT(link_.checkpoints, testing::SizeIs(1));
  EXPECT_EQ(link_.checkpoints[0].step(), latest.state->step);
  EXPECT_EQ(link_.checkpoints[0].path(), latest.path);
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

// A rank of a float64 training; `root` holds the corpus.
int TrainRankOf(v1::WorkerOrder::Assignment assignment, const collectives::Group::Options& options,
                const std::string& root) {
  assignment.set_rank(options.rank);
  assignment.set_world_size(options.world_size);
  assignment.set_store_host(options.store_host);
  assignment.set_store_port(options.store_port);
  assignment.set_store_prefix(options.store_prefix);
  auto& job = *assignment.mutable_job();
  const std::string folder = root + "/ranks-" + std::to_string(options.world_size);
  job.set_dtype(v1::Student::DTYPE_FLOAT64);
  job.set_package(folder + "/models/tiny");
  job.set_checkpoints(folder + "/checkpoints");
  auto trace = RecordTrace::Open(folder + "-trace-" + std::to_string(options.rank));
  TinyLink link(root);
  const auto done = Train(assignment, {options.host, &link, trace->get(), {}});
  std::printf("%s\n", done.ok() ? done->weights_digest().c_str() : done.status().ToString().c_str());
  return done.ok() ? 0 : 1;
}

int TrainRank(const collectives::Group::Options& options, const std::string& root) {
  return TrainRankOf(TinyTraining(root, kSteps), options, root);
}

// One that ends early, at a learning rate that makes it worse again.
int TrainEarlyRank(const collectives::Group::Options& options, const std::string& root) {
  auto assignment = TinyTraining(root, kSteps);
  auto& job = *assignment.mutable_job();
  job.mutable_early_stopping()->set_metric(v1::EarlyStopping::METRIC_LOSS);
  job.mutable_early_stopping()->set_every(4);
  job.mutable_early_stopping()->set_patience(2);
  job.set_validation_index_digest(job.plan().index_digest());
  job.mutable_optimizer()->set_lr(1.0);
  job.mutable_optimizer()->set_schedule(v1::Optimizer::SCHEDULE_CONSTANT);
  return TrainRankOf(std::move(assignment), options, root);
}

struct Trained {
  std::map<std::string, at::Tensor> parameters;
  // Step -> ids of the global batch, in rank order.
  std::map<int64_t, std::vector<std::string>> steps;
};

Trained TrainWithRanks(const std::string& root, int world_size, const std::string& function = "train") {
  collectives::RankProcesses ranks(function, world_size, root);
  const std::string folder = root + "/ranks-" + std::to_string(world_size);
  std::set<std::string> digests;
  Trained trained;
  for (int rank = 0; rank < world_size; ++rank) {
    std::string line = ranks.ReadLine(rank);
    while (line.starts_with("[")) line = ranks.ReadLine(rank);  // logs, and what Gloo says of its connections
    EXPECT_EQ(ranks.Wait(rank), 0) << line;
    digests.insert(line);
    std::ifstream trace(folder + "-trace-" + std::to_string(rank));
    for (std::string entry; std::getline(trace, entry);) {
      const auto json = nlohmann::json::parse(entry);
      for (const auto& id : json["ids"]) trained.steps[json["step"].get<int64_t>()].push_back(id);
    }
  }
  EXPECT_THAT(digests, testing::SizeIs(1)) << "replicas apart";
  const auto package = models::LoadPackage(folder + "/models/tiny");
  EXPECT_TRUE(package.ok()) << package.status();
  if (!package.ok()) return trained;
  for (const auto& [name, parameter] : package->model->NamedParameters()) trained.parameters[name] = parameter;
  return trained;
}

TEST(Ranks, OneTwoAndThreeTakeTheSameRecordsAndAgreeInFloat64) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  const Trained alone = TrainWithRanks(root, 1);
  ASSERT_EQ(alone.steps.size(), kSteps);
  for (const auto& [step, ids] : alone.steps) ASSERT_EQ(ids.size(), 16);
  for (const int world_size : {2, 3}) {
    const Trained together = TrainWithRanks(root, world_size);
    EXPECT_EQ(together.steps, alone.steps);
    ASSERT_EQ(together.parameters.size(), alone.parameters.size());
    for (const auto& [name, parameter] : alone.parameters) {
      ASSERT_EQ(parameter.scalar_type(), at::kDouble);
      const double difference = (together.parameters.at(name) - parameter).abs().max().item<double>();
      EXPECT_LE(difference, 1e-9 * parameter.abs().max().item<double>()) << name << ", " << world_size << " ranks";
    }
  }
}

TEST(Ranks, OneTwoAndThreeStopAtTheSameStepWithTheSameWeights) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  const Trained alone = TrainWithRanks(root, 1, "early");
  ASSERT_FALSE(alone.steps.empty());
  EXPECT_LT(alone.steps.size(), kSteps);
  for (const int world_size : {2, 3}) {
    const Trained together = TrainWithRanks(root, world_size, "early");
    EXPECT_EQ(together.steps, alone.steps);
    ASSERT_EQ(together.parameters.size(), alone.parameters.size());
    for (const auto& [name, parameter] : alone.parameters) {
      const double difference = (together.parameters.at(name) - parameter).abs().max().item<double>();
      EXPECT_LE(difference, 1e-9 * parameter.abs().max().item<double>()) << name << ", " << world_size << " ranks";
    }
  }
}

}  // namespace
}  // namespace polystill::student_worker

int main(int argc, char** argv) {
  return polystill::collectives::RankTestMain(
      argc, argv,
      {{"train", polystill::student_worker::TrainRank}, {"early", polystill::student_worker::TrainEarlyRank}});
}
