#include "student_worker/trainer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <torch/script.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
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
    const auto state = checkpoint::LoadCheckpoint(
        checkpoint::CheckpointPath(assignment.job().checkpoints(), step, assignment.generation()));
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

// With dropout, so that a record that draws otherwise shows.
void UseTransformer(v1::Job* job) {
  v1::Model& model = *job->mutable_model();
  model.Clear();
  model.set_kind(v1::Model::KIND_TRANSFORMER);
  model.set_width(8);
  model.set_layers(1);
  model.set_heads(2);
  model.set_dropout(0.3);
  job->mutable_optimizer()->set_kind(v1::Optimizer::KIND_SGD);  // Adam makes much of a gradient that is near zero
}

using Parameters = std::map<std::string, at::Tensor>;

Parameters LoadParameters(const std::string& package) {
  const auto loaded = models::LoadPackage(package);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  if (!loaded.ok()) return {};
  const auto named = loaded->model->NamedParameters();
  return {named.begin(), named.end()};
}

// Of any two numbers, as a share of the largest.
double Apart(const Parameters& a, const Parameters& b) {
  EXPECT_FALSE(a.empty());
  EXPECT_EQ(a.size(), b.size());
  double apart = 0;
  for (const auto& [name, parameter] : a) {
    const double largest = parameter.abs().max().item<double>();
    apart = std::max(apart, (b.at(name) - parameter).abs().max().item<double>() / largest);
  }
  return apart;
}

TEST_F(TrainerTest, MicroBatchesAddUpToTheStep) {
  WriteTinyCorpus(folder_, kRecords);
  std::map<int, Parameters> trained;
  std::map<int, double> last_loss;
  for (const int micro_batch : {0, 1, 3, 16, 100}) {
    auto assignment = TinyTraining(folder_, 20);
    UseTransformer(assignment.mutable_job());
    assignment.mutable_job()->set_dtype(v1::Student::DTYPE_FLOAT64);
    assignment.mutable_job()->set_micro_batch(micro_batch);
    link_.on_progress = [&](const auto& progress) { last_loss[micro_batch] = progress.loss(); };
    const auto done = Train(assignment, context_);
    ASSERT_TRUE(done.ok()) << done.status();
    trained[micro_batch] = LoadParameters(assignment.job().package());
    EXPECT_LT(Apart(trained[0], trained[micro_batch]), 1e-12) << micro_batch;
    EXPECT_NEAR(last_loss[0], last_loss[micro_batch], 1e-12) << micro_batch;
  }
}

TEST_F(TrainerTest, Bfloat16StaysNearFloat32) {
  WriteTinyCorpus(folder_, kRecords);
  std::vector<Parameters> trained;
  std::vector<double> losses;
  for (const auto autocast : {v1::Student::AUTOCAST_NONE, v1::Student::AUTOCAST_BFLOAT16}) {
    auto assignment = TinyTraining(folder_, 20);
    UseTransformer(assignment.mutable_job());
    assignment.mutable_job()->set_autocast(autocast);
    link_.on_progress = [&](const auto& progress) { losses.push_back(progress.loss()); };
    const auto done = Train(assignment, context_);
    ASSERT_TRUE(done.ok()) << done.status();
    trained.push_back(LoadParameters(assignment.job().package()));
  }
  const double apart = Apart(trained[0], trained[1]);
  EXPECT_GT(apart, 1e-6);  // else nothing was in bfloat16
  EXPECT_LT(apart, 0.02);
  for (int step = 0; step < 20; ++step) EXPECT_NEAR(losses[step], losses[20 + step], 0.02) << step;
}

TEST_F(TrainerTest, ATorchScriptModuleIsTrainedAndPackaged) {
  WriteTinyCorpus(folder_, kRecords);
  torch::jit::Module module("m");
  module.register_parameter("embedding", (at::arange(kTinyVocabulary * 8) * 7.0).sin().reshape({-1, 8}), false);
  module.register_parameter("head", (at::arange(16) * 3.0).cos().reshape({8, 2}), false);
  for (const auto& parameter : module.parameters()) parameter.set_requires_grad(true);
  module.register_attribute("training", c10::BoolType::get(), true);
  module.define(R"(
def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
    x = torch.dropout(self.embedding[ids], 0.1, self.training) * mask.unsqueeze(2).to(self.embedding.dtype)
    return x.mean(1).matmul(self.head)
)");
  module.save(folder_ + "/module.pt");
  auto assignment = TinyTraining(folder_, 100);
  v1::Model& model = *assignment.mutable_job()->mutable_model();
  model.Clear();
  model.set_kind(v1::Model::KIND_TORCHSCRIPT);
  model.set_path(folder_ + "/module.pt");
  std::vector<double> losses;
  link_.on_progress = [&](const auto& progress) { losses.push_back(progress.loss()); };
  const auto done = Train(assignment, context_);
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_LT(losses.back(), 0.5 * losses.front());
  const auto package = models::LoadPackage(assignment.job().package());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(models::WeightsDigest(*package->model), done->weights_digest());
  const auto latest = checkpoint::LatestCheckpoint(assignment.job().checkpoints());
  ASSERT_TRUE(latest.state.has_value());
  EXPECT_EQ(latest.state->model[0].first, "embedding");
  // Its draws are repeatable, though its generator is the process's.
  at::rand({3});
  const auto again = Train(assignment, context_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->weights_digest(), done->weights_digest());
}

v1::WorkerOrder::Assignment TrainingOfRank(const collectives::Group::Options& options, const std::string& root,
                                           int64_t steps) {
  auto assignment = TinyTraining(root, steps);
  assignment.set_rank(options.rank);
  assignment.set_world_size(options.world_size);
  assignment.set_store_host(options.store_host);
  assignment.set_store_port(options.store_port);
  assignment.set_store_prefix(options.store_prefix);
  return assignment;
}

// A rank of a float64 training; `root` holds the corpus.
int TrainRank(const collectives::Group::Options& options, const std::string& root, int steps,
              const std::function<void(v1::Job*)>& change) {
  auto assignment = TrainingOfRank(options, root, steps);
  auto& job = *assignment.mutable_job();
  const std::string folder = root + "/ranks-" + std::to_string(options.world_size);
  job.set_dtype(v1::Student::DTYPE_FLOAT64);
  change(&job);
  job.set_package(folder + "/models/tiny");
  job.set_checkpoints(folder + "/checkpoints");
  auto trace = RecordTrace::Open(folder + "-trace-" + std::to_string(options.rank));
  TinyLink link(root);
  const auto done = Train(assignment, {options.host, &link, trace->get(), {}});
  std::printf("%s\n", done.ok() ? done->weights_digest().c_str() : done.status().ToString().c_str());
  return done.ok() ? 0 : 1;
}

int TrainTransformer(const collectives::Group::Options& options, const std::string& root) {
  return TrainRank(options, root, 20, [](v1::Job* job) {
    UseTransformer(job);
    job->set_micro_batch(3);
  });
}

// It ends early, at a learning rate that makes it worse again.
int TrainEarly(const collectives::Group::Options& options, const std::string& root) {
  return TrainRank(options, root, kSteps, [](v1::Job* job) {
    job->mutable_early_stopping()->set_metric(v1::EarlyStopping::METRIC_LOSS);
    job->mutable_early_stopping()->set_every(4);
    job->mutable_early_stopping()->set_patience(2);
    job->set_validation_index_digest(job->plan().index_digest());
    job->mutable_optimizer()->set_lr(1.0);
    job->mutable_optimizer()->set_schedule(v1::Optimizer::SCHEDULE_CONSTANT);
  });
}

// Of three ranks, the first has no record.
int TrainOnTwoRecords(const collectives::Group::Options& options, const std::string& root) {
  return TrainRank(options, root, 20, [](v1::Job* job) {
    UseTransformer(job);
    job->set_micro_batch(1);
    job->mutable_plan()->set_batch_size(2);
  });
}

struct Trained {
  Parameters parameters;
  // Step -> ids of the global batch, in rank order.
  std::map<int64_t, std::vector<std::string>> steps;
};

Trained TrainWithRanks(const std::string& function, const std::string& root, int world_size) {
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
      if (json["event"] != "slice") continue;
      for (const auto& id : json["ids"]) trained.steps[json["step"].get<int64_t>()].push_back(id);
    }
  }
  EXPECT_THAT(digests, testing::SizeIs(1)) << "replicas apart";
  trained.parameters = LoadParameters(folder + "/models/tiny");
  return trained;
}

// Ranks of 16, 8 and 8, or 5, 5 and 6 records take them three at a time: the same number of reductions, the same masks.
TEST(Ranks, DropoutAndMicroBatchesDoNotDependOnTheWorld) {
  for (const char* function : {"transformer", "two records"}) {
    const std::string root = NewFolder();
    WriteTinyCorpus(root, kRecords);
    const Trained alone = TrainWithRanks(function, root, 1);
    for (const int world_size : {2, 3}) {
      const Trained together = TrainWithRanks(function, root, world_size);
      EXPECT_EQ(together.steps, alone.steps);
      EXPECT_LE(Apart(alone.parameters, together.parameters), 1e-12) << function << ", " << world_size << " ranks";
    }
  }
}

// A rank whose first weights are not the others'; `root` holds the corpus.
int TrainApart(const collectives::Group::Options& options, const std::string& root) {
  auto assignment = TrainingOfRank(options, root, kSteps);
  assignment.mutable_job()->set_seed(options.rank);
  TinyLink link(root);
  const auto done = Train(assignment, {options.host, &link, nullptr, {}});
  std::printf("%s\n", done.status().ToString().c_str());
  return done.ok() ? 1 : 0;
}

TEST(Ranks, ReplicasThatAreApartAreFoundBeforeTheFirstStep) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  collectives::RankProcesses ranks("apart", 2, root);
  for (int rank = 0; rank < 2; ++rank) {
    std::string line = ranks.ReadLine(rank);
    while (line.starts_with("[")) line = ranks.ReadLine(rank);  // logs, and what Gloo says of its connections
    EXPECT_EQ(ranks.Wait(rank), 0);
    EXPECT_THAT(line, HasSubstr("replicas apart after step 0 of generation 0: rank 0 holds"));
  }
}

// Rank 1 cannot write what it has trained on: its disk is full.
int TrainUntilOneFails(const collectives::Group::Options& options, const std::string& root) {
  auto assignment = TrainingOfRank(options, root, kSteps);
  auto trace = RecordTrace::Open(options.rank == 1 ? "/dev/full" : root + "/trace");
  TinyLink link(root);
  const auto done = Train(assignment, {options.host, &link, trace->get(), {}});
  std::printf("%s\n", done.status().ToString().c_str());
  std::fflush(stdout);
  if (options.rank == 1) pause();  // the process lives on, as a worker does after its job
  return done.ok() ? 1 : 0;
}

TEST(Ranks, AFailureOfOneEndsTheOthersLongBeforeTheirPatience) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  const auto start = std::chrono::steady_clock::now();
  collectives::RankProcesses ranks("one fails", 2, root);
  const char* const said[] = {"rank 0 of 2", "cannot write to /dev/full"};
  for (int rank = 0; rank < 2; ++rank) {
    std::string line = ranks.ReadLine(rank);
    while (line.starts_with("[")) line = ranks.ReadLine(rank);  // logs, and what Gloo says of its connections
    EXPECT_THAT(line, HasSubstr(said[rank]));
  }
  EXPECT_EQ(ranks.Wait(0), 0);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(45));  // a hung peer is waited for 90 s
  std::filesystem::remove_all(root);
}

TEST(Ranks, OneTwoAndThreeStopAtTheSameStepWithTheSameWeights) {
  const std::string root = NewFolder();
  WriteTinyCorpus(root, kRecords);
  const Trained alone = TrainWithRanks("early", root, 1);
  ASSERT_FALSE(alone.steps.empty());
  EXPECT_LT(alone.steps.size(), kSteps);
  for (const int world_size : {2, 3}) {
    const Trained together = TrainWithRanks("early", root, world_size);
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
  return polystill::collectives::RankTestMain(argc, argv,
                                              {{"apart", polystill::student_worker::TrainApart},
                                               {"one fails", polystill::student_worker::TrainUntilOneFails},
                                               {"early", polystill::student_worker::TrainEarly},
                                               {"transformer", polystill::student_worker::TrainTransformer},
                                               {"two records", polystill::student_worker::TrainOnTwoRecords}});
}
