#include "coordinator/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "coordinator/jobs.h"
#include "evaluation/latency.h"
#include "evaluation/predictions.h"
#include "runtime/files.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class RunReportTest : public testing::Test {
 protected:
  RunReportTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("run_report_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    run_.spec.set_name("topics");
    run_.spec.set_output(folder_.string());
    run_.spec.mutable_student()->set_reads(v1::SIDE_TEXT);
    run_.spec.mutable_student()->set_workers(2);
    v1::Loss& loss = *run_.spec.mutable_student()->add_losses();
    loss.set_kind(v1::LOSS_KIND_SOFT_LABEL);
    loss.set_codec(v1::CODEC_DENSE_FP16);
    v1::Teacher& teacher = *run_.spec.add_teachers();
    teacher.set_name("english");
    teacher.set_reads(v1::SIDE_SOURCE_TEXT);
    teacher.set_package((folder_ / "english").string());
    run_.teacher_digests["english"] = "abc";
    run_.student_digest = "def";
  }
  ~RunReportTest() override { fs::remove_all(folder_); }

  void WritePackage(const fs::path& package, const std::string& yaml) {
    ASSERT_TRUE(WriteFileAtomically((package / "teacher.yaml").string(), yaml).ok());
  }

  fs::path folder_;
  FinishedRun run_;
};

TEST_F(RunReportTest, SaysWhatTheRunWas) {
  WritePackage(folder_ / "english", "model: {parameters: 1234}\n");
  WritePackage(PackageFolder(run_.spec, "distilled"), "model: {parameters: 77}\n");
  auto index = std::make_shared<v1::CorpusIndex>();
  index->add_files()->set_path("a.parquet");
  run_.indexes = {index, index};
  v1::RunStatus::Stage& stage = *run_.status.add_stages();
  stage.set_name("distilled");
  stage.set_seconds(2.5);
  stage.set_labels(10);
  stage.set_label_bytes(200);
  stage.set_done(70);
  stage.set_total(100);
  PlannedJob distilled;
  distilled.job.set_kind(v1::Job::KIND_TRAIN);
  distilled.job.set_name("distilled");
  PlannedJob evaluate;
  evaluate.job.set_kind(v1::Job::KIND_EVALUATE);
  evaluate.job.set_predictions((folder_ / "predictions.parquet").string());
  evaluate.job.set_latency((folder_ / "latency.json").string());
  v1::EvaluatedModel& teacher = *evaluate.job.add_timed();
  teacher.set_name("teacher");
  teacher.set_package((folder_ / "english").string());
  ASSERT_TRUE(evaluation::WriteLatencies({{"teacher", {{"batch_1", {1.5, 2}}}}}, evaluate.job.latency()).ok());
  run_.jobs = {distilled, evaluate};
  auto writer = evaluation::PredictionsWriter::Create(evaluate.job.predictions(), {"net", "devel"}, {"distilled"});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Append({{"id", "de", "", 1, {{0.1f, 0.9f}}}}).ok());
  ASSERT_TRUE((*writer)->Finish().ok());

  const auto path = WriteRunReport(run_);
  ASSERT_TRUE(path.ok()) << path.status();
  EXPECT_EQ(*path, (folder_ / "report.json").string());
  const auto report = nlohmann::json::parse(*ReadFile(*path));
  EXPECT_EQ(report["run"], "topics");
  EXPECT_EQ(report["teacher"]["parameters"], 1234);
  EXPECT_EQ(report["teacher"]["digest"], "abc");
  EXPECT_EQ(report["teacher"]["reads"], "source_text");
  EXPECT_EQ(report["student"]["parameters"], 77);
  EXPECT_EQ(report["student"]["digest"], "def");
  EXPECT_EQ(report["student"]["workers"], 2);
  EXPECT_EQ(report["models"]["teacher"]["parameters"], 1234);
  EXPECT_EQ(report["models"]["teacher"]["bytes"], 26);
  EXPECT_EQ(report["models"]["teacher"]["latency"]["batch_1"]["text_ms"], 2.0);
  EXPECT_EQ(report["labels"]["codec"], "dense_fp16");
  EXPECT_EQ(report["labels"]["count"], 10);
  EXPECT_EQ(report["labels"]["bytes"], 200);
  EXPECT_EQ(report["corpus"]["files"].size(), 1u);
  EXPECT_EQ(report["seconds"]["distilled"], 2.5);
  EXPECT_EQ(report["steps"], nlohmann::json::parse(R"({"distilled": {"taken": 70, "planned": 100}})"));
  EXPECT_EQ(report["mean"]["distilled"]["accuracy"], 1.0);
}

TEST_F(RunReportTest, TheTeacherIsTheOneThatTheLabelsCameFrom) {
  WritePackage(folder_ / "english", "model: {parameters: 1}\n");
  WritePackage(folder_ / "german", "model: {parameters: 2}\n");
  WritePackage(PackageFolder(run_.spec, "distilled"), "model: {parameters: 77}\n");
  v1::Teacher& second = *run_.spec.add_teachers();
  second.set_name("german");
  second.set_package((folder_ / "german").string());
  for (v1::Loss& loss : *run_.spec.mutable_student()->mutable_losses()) {
    if (loss.kind() != v1::LOSS_KIND_TASK) loss.set_teacher("german");
  }
  const auto facts = FactsOf(run_);
  ASSERT_TRUE(facts.ok()) << facts.status();
  EXPECT_EQ(facts->teacher->name, "german");
}

TEST_F(RunReportTest, ParametersOfAPackage) {
  EXPECT_EQ(ReadParameters(folder_.string()).status().code(), absl::StatusCode::kNotFound);
  WritePackage(folder_, "backend: torchscript\n");
  EXPECT_EQ(*ReadParameters(folder_.string()), std::nullopt);
  WritePackage(folder_, "model: {kind: subword_bag, parameters: 12}\n");
  EXPECT_EQ(*ReadParameters(folder_.string()), 12);
  WritePackage(folder_, "model: {parameters: many}\n");
  const absl::Status status = ReadParameters(folder_.string()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("teacher.yaml"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.parameters"));
}

}  // namespace
}  // namespace polystill::coordinator
