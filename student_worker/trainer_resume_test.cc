#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "checkpoint/checkpoint.h"
#include "models/package.h"
#include "student_worker/tiny_job.h"
#include "student_worker/trainer.h"

namespace polystill::student_worker {
namespace {

using testing::HasSubstr;

constexpr int kRecords = 300;
constexpr int kSteps = 60;

class TrainerResumeTest : public testing::Test {
 protected:
  TrainerResumeTest() {
    corpus_ = testing::TempDir() + "trainer_resume_test_XXXXXX";
    if (mkdtemp(corpus_.data()) == nullptr) throw std::runtime_error("mkdtemp");
    WriteTinyCorpus(corpus_, kRecords);
    link_ = std::make_unique<TinyLink>(corpus_);
  }
  ~TrainerResumeTest() override { std::filesystem::remove_all(corpus_); }

  // A training whose packages and checkpoints go into folders of their own.
  v1::WorkerOrder::Assignment Training(const std::string& name) {
    auto assignment = TinyTraining(corpus_, kSteps);
    assignment.mutable_job()->set_checkpoint_every(5);  // the ranks come together there
    assignment.mutable_job()->set_package(corpus_ + "/" + name + "/package");
    assignment.mutable_job()->set_checkpoints(corpus_ + "/" + name + "/checkpoints");
    return assignment;
  }

  absl::StatusOr<v1::WorkerMessage::Done> Train(const v1::WorkerOrder::Assignment& assignment, int64_t stop_at = 0) {
    std::stop_source stop;
    link_->on_progress = [&](const auto& progress) {
      if (progress.step() == stop_at) stop.request_stop();
    };
    return student_worker::Train(assignment, {"127.0.0.1", link_.get(), nullptr, stop.get_token()});
  }

  std::string corpus_;
  std::unique_ptr<TinyLink> link_;
};

TEST_F(TrainerResumeTest, EndsBitEqualToAnUnbrokenTraining) {
  const auto unbroken = Train(Training("unbroken"));
  ASSERT_TRUE(unbroken.ok()) << unbroken.status();

  auto assignment = Training("broken");
  for (const int stop_at : {13, 22, 40}) {
    link_->checkpoints.clear();
    EXPECT_EQ(Train(assignment, stop_at).status().code(), absl::StatusCode::kCancelled);
    ASSERT_FALSE(link_->checkpoints.empty());
    const auto& last = link_->checkpoints.back();
    EXPECT_GE(last.step(), stop_at);
    EXPECT_EQ(last.generation(), assignment.generation());
    GoOnFrom(last, &assignment);
    assignment.set_generation(assignment.generation() + 1);
    // Free to change between two processes of one run.
    assignment.mutable_job()->set_prefetch(assignment.job().prefetch() + 1);
    assignment.mutable_job()->set_checkpoint_every(3);
  }
  const auto resumed = Train(assignment);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->weights_digest(), unbroken->weights_digest());
  EXPECT_EQ(resumed->progress().step(), kSteps);
  for (const auto& [language, records] : unbroken->progress().records()) {
    EXPECT_EQ(resumed->progress().records().at(language), records) << language;
  }
  EXPECT_EQ(models::LoadPackage(assignment.job().package())->info.digest,
            models::LoadPackage(Training("unbroken").job().package())->info.digest);
}

TEST_F(TrainerResumeTest, AJobWhoseLastCheckpointIsThereWritesItsPackageAgain) {
  auto assignment = Training("again");
  const auto first = Train(assignment);
  ASSERT_TRUE(first.ok()) << first.status();
  std::filesystem::remove_all(assignment.job().package());
  GoOnFrom(link_->checkpoints.back(), &assignment);
  const auto again = Train(assignment);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->weights_digest(), first->weights_digest());
  EXPECT_TRUE(models::LoadPackage(assignment.job().package()).ok());
}

TEST_F(TrainerResumeTest, RefusesATornCheckpointByName) {
  auto assignment = Training("torn");
  ASSERT_TRUE(Train(assignment).ok());
  GoOnFrom(link_->checkpoints.back(), &assignment);
  const std::string file = assignment.checkpoint() + "/optimizer.safetensors";
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  const absl::Status status = Train(assignment).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(file));
}

TEST_F(TrainerResumeTest, ACheckpointThatCannotBeWrittenEndsTheTraining) {
  auto assignment = Training("full");
  assignment.mutable_job()->set_checkpoints(corpus_ + "/corpus.parquet");
  const absl::Status status = Train(assignment).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(corpus_ + "/corpus.parquet"));
  EXPECT_THAT(link_->checkpoints, testing::IsEmpty());
}

TEST_F(TrainerResumeTest, RefusesACheckpointOfAnotherJob) {
  auto assignment = Training("other");
  ASSERT_TRUE(Train(assignment).ok());
  GoOnFrom(link_->checkpoints.back(), &assignment);
  assignment.mutable_job()->mutable_optimizer()->set_lr(0.5);
  const absl::Status status = Train(assignment).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(assignment.checkpoint()));
}

TEST_F(TrainerResumeTest, EarlyStoppingKeepsTheBestWeightsAndSurvivesAResume) {
  const auto with_early_stopping = [this](const std::string& name) {
    auto assignment = Training(name);
    auto& early_stopping = *assignment.mutable_job()->mutable_early_stopping();
    early_stopping.set_metric(v1::EarlyStopping::METRIC_LOSS);
    early_stopping.set_every(4);
    early_stopping.set_patience(2);
    assignment.mutable_job()->set_validation_index_digest(assignment.job().plan().index_digest());
    // So large that it gets worse before the end.
    assignment.mutable_job()->mutable_optimizer()->set_lr(1.0);
    assignment.mutable_job()->mutable_optimizer()->set_schedule(v1::Optimizer::SCHEDULE_CONSTANT);
    return assignment;
  };
  const auto assignment = with_early_stopping("unbroken");
  const auto unbroken = Train(assignment);
  ASSERT_TRUE(unbroken.ok()) << unbroken.status();
  EXPECT_LT(unbroken->progress().step(), kSteps);
  EXPECT_EQ(unbroken->progress().step() % 4, 0);
  const auto latest = checkpoint::LatestCheckpoint(assignment.job().checkpoints());
  ASSERT_TRUE(latest.state.has_value() && latest.state->early_stopping.has_value());
  EXPECT_EQ(latest.state->early_stopping->best_step(), unbroken->progress().step() - 8);
  // The measurement that ended the job is told, too.
  EXPECT_EQ(unbroken->progress().validation_step(), unbroken->progress().step());
  EXPECT_EQ(unbroken->progress().validation(), latest.state->early_stopping->last());
  const auto package = models::LoadPackage(assignment.job().package());
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(models::WeightsDigest(*package->model), unbroken->weights_digest());
  EXPECT_TRUE(at::equal(package->model->NamedParameters()[0].second, latest.state->best[0].second));

  auto broken = with_early_stopping("broken");
  EXPECT_FALSE(Train(broken, unbroken->progress().step() - 5).ok());
  GoOnFrom(link_->checkpoints.back(), &broken);
  const auto resumed = Train(broken);
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  EXPECT_EQ(resumed->progress().step(), unbroken->progress().step());
  EXPECT_EQ(resumed->weights_digest(), unbroken->weights_digest());
}

}  // namespace
}  // namespace polystill::student_worker
