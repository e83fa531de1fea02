#include "student_worker/evaluator.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <map>

#include "corpus/index.h"
#include "corpus/reader.h"
#include "evaluation/latency.h"
#include "evaluation/predictions.h"
#include "models/package.h"
#include "student_worker/tiny_job.h"

namespace polystill::student_worker {
namespace {

using testing::HasSubstr;

constexpr int kRecords = 300;

class EvaluatorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "evaluator_test_XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    WriteTinyCorpus(folder_, kRecords);
    link_ = std::make_unique<TinyLink>(folder_);
    auto& job = *assignment_.mutable_job();
    job = TinyTraining(folder_, 1).job();
    job.set_kind(v1::Job::KIND_EVALUATE);
    *job.mutable_selection() = TinySelection(folder_);
    job.set_predictions(folder_ + "/predictions.parquet");
  }

  // Two models of other seeds.
  void AddModel(const std::string& name, uint64_t seed) {
    const v1::Job& job = assignment_.job();
    const models::ModelShape shape = {job.model(), kTinyVocabulary, job.labels_size(), v1::Student::DTYPE_FLOAT32};
    v1::Signature signature;
    signature.set_input(v1::Signature::INPUT_IDS);
    signature.set_vocab_size(kTinyVocabulary);
    signature.set_max_length(job.tokenizer().max_length());
    *signature.mutable_labels() = job.labels();
    models_[name] = *models::MakeModel(shape, seed);
    const auto saved = models::SavePackage(folder_ + "/" + name, name, *models_[name], shape, signature, "");
    ASSERT_TRUE(saved.ok()) << saved.status();
    auto& model = *assignment_.mutable_job()->add_models();
    model.set_name(name);
    model.set_package(folder_ + "/" + name);
    model.set_reads(v1::SIDE_TEXT);
  }

  absl::StatusOr<v1::WorkerMessage::Done> Run() {
    return Evaluate(assignment_, {"127.0.0.1", link_.get(), nullptr, stop_.get_token()});
  }

  std::string folder_;
  std::unique_ptr<TinyLink> link_;
  std::stop_source stop_;
  v1::WorkerOrder::Assignment assignment_;
  std::map<std::string, std::unique_ptr<models::Model>> models_;
};

TEST_F(EvaluatorTest, WritesEveryModelsProbabilitiesForEveryRecord) {
  AddModel("distilled", 1);
  AddModel("gold", 2);
  const auto done = Run();
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->progress().records().at("ja"), kRecords / 3);

  // Each record alone: in repeatable mode the other rows of a forward do not matter.
  std::map<std::string, corpus::Record> records;
  const auto index = std::make_shared<const v1::CorpusIndex>(*corpus::BuildIndex(TinySelection(folder_)));
  auto reader = *corpus::Reader::Open(index);
  for (int language = 0; language < index->languages_size(); ++language) {
    for (int block = 0; block < index->languages(language).blocks_size(); ++block) {
      auto read = reader->ReadBlock(language, block);
      EXPECT_TRUE(read.ok()) << read.status();
      for (corpus::Record& record : *read) records[record.id] = std::move(record);
    }
  }
  auto predictions = evaluation::PredictionsReader::Open(folder_ + "/predictions.parquet");
  ASSERT_TRUE(predictions.ok()) << predictions.status();
  EXPECT_EQ((*predictions)->models(), (std::vector<std::string>{"distilled", "gold"}));
  const at::NoGradGuard no_grad;
  int seen = 0;
  for (auto rows = *(*predictions)->Next(); !rows.empty(); rows = *(*predictions)->Next()) {
    for (const evaluation::Prediction& row : rows) {
      const corpus::Record& record = records.at(row.id);
      EXPECT_EQ(row.language, record.language);
      EXPECT_EQ(row.gold, record.label);
      for (int m = 0; m < 2; ++m) {
        const auto& model = *models_.at((*predictions)->models()[m]);
        const at::Tensor expected = at::softmax(models::FixedShapeForward(model, {record.ids}).logits, 1);
        EXPECT_EQ(row.probabilities[m][0], expected[0][0].item<float>());
        EXPECT_EQ(row.probabilities[m][1], expected[0][1].item<float>());
      }
      ++seen;
    }
  }
  EXPECT_EQ(seen, kRecords);
}

TEST_F(EvaluatorTest, MeasuresLatencyOfTheModelsThatItCanLoad) {
  AddModel("distilled", 1);
  auto& job = *assignment_.mutable_job();
  *job.add_timed() = job.models(0);
  job.mutable_timed(0)->set_name("student");
  *job.add_timed() = job.models(0);
  job.mutable_timed(1)->set_name("teacher");
  job.mutable_timed(1)->set_package(folder_ + "/none");
  job.set_latency(folder_ + "/latency.json");
  const auto done = Run();
  ASSERT_TRUE(done.ok()) << done.status();
  const auto latencies = evaluation::ReadLatencies(job.latency());
  ASSERT_TRUE(latencies.ok()) << latencies.status();
  ASSERT_EQ(latencies->size(), 1u);
  EXPECT_GT(latencies->at("student").at("batch_1").forward_ms, 0.0);
  EXPECT_GT(latencies->at("student").at("batch_32").forward_ms, 0.0);
  EXPECT_EQ(latencies->at("student").at("batch_1").text_ms, std::nullopt);
}

TEST_F(EvaluatorTest, RefusesAModelOfOtherClasses) {
  AddModel("distilled", 1);
  assignment_.mutable_job()->set_labels(0, "other");
  const absl::Status status = Run().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_ + "/distilled"));
}

TEST_F(EvaluatorTest, LeavesNoFileWhenStopped) {
  AddModel("distilled", 1);
  stop_.request_stop();
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(evaluation::PredictionsReader::Open(folder_ + "/predictions.parquet").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace polystill::student_worker
