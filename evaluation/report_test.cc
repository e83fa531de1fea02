#include "evaluation/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "evaluation/predictions.h"
#include "runtime/files.h"

namespace polystill::evaluation {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ReportTest : public testing::Test {
 protected:
  ReportTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("report_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    predictions_ = (folder_ / "predictions.parquet").string();
    report_ = (folder_ / "report.json").string();
  }
  ~ReportTest() override { fs::remove_all(folder_); }

  void Write(const std::vector<Prediction>& rows) {
    auto writer = PredictionsWriter::Create(predictions_, {"net", "devel"}, {"distilled"});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->Append(rows).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  nlohmann::json Report(const RunFacts& facts) {
    const absl::Status status = WriteReport(facts, predictions_, report_);
    EXPECT_TRUE(status.ok()) << status;
    return nlohmann::json::parse(*ReadFile(report_));
  }

  fs::path folder_;
  std::string predictions_;
  std::string report_;
};

// A record of `language` with this gold class, predicted as `predicted`.
Prediction Row(const std::string& language, int gold, int predicted) {
  return {"id", language, "", gold, {predicted == 0 ? std::vector<float>{0.9f, 0.1f} : std::vector<float>{0.2f, 0.8f}}};
}

TEST_F(ReportTest, TableByHand) {
  // de: 3 of 4 right; F1 of net 2*1/(1+2) = 2/3, of devel 2*2/(3+2) = 4/5. fr: all right, one class alone.
  Write({Row("de", 0, 0), Row("de", 1, 1), Row("de", 1, 1), Row("de", 1, 0), Row("fr", 1, 1), Row("fr", 1, 1)});
  const nlohmann::json report = Report({});
  EXPECT_EQ(report["languages"]["de"]["records"], 4);
  EXPECT_DOUBLE_EQ(report["languages"]["de"]["distilled"]["accuracy"], 0.75);
  EXPECT_DOUBLE_EQ(report["languages"]["de"]["distilled"]["macro_f1"], (2.0 / 3 + 4.0 / 5) / 2);
  EXPECT_DOUBLE_EQ(report["languages"]["fr"]["distilled"]["macro_f1"], 1.0);
  EXPECT_EQ(report["mean"]["records"], 6);
  EXPECT_DOUBLE_EQ(report["mean"]["distilled"]["accuracy"], (0.75 + 1.0) / 2);
  EXPECT_EQ(report["predictions"], predictions_);
  EXPECT_EQ(report["labels"]["classes"], (std::vector<std::string>{"net", "devel"}));
}

TEST_F(ReportTest, FactsOfTheRun) {
  Write({Row("de", 0, 0)});
  RunFacts facts;
  facts.run = "topics";
  facts.metrics = {"macro_f1"};
  facts.label_count = 12;
  facts.label_bytes = 480;
  facts.codec = "dense_fp16";
  facts.teacher = ReportedModel{"english", "models/teacher-english", "ab", 1234, "source_text"};
  facts.student = {"distilled", "models/distilled", "cd", std::nullopt, "text"};
  facts.workers = 2;
  facts.costs = {{"teacher", 1234, 5000, {{"batch_1", {3, 4}}}},
                 {"student", std::nullopt, 50, {{"batch_1", {0.125, 1}}}}};
  facts.files = {{"a.parquet", "ef", 77}};
  facts.seconds = {{"index", 0.5}, {"distilled", 3.25}};
  facts.steps = {{"distilled", 70, 100}};
  facts.evictions = {{"distilled", "w", "10.7.0.2", 71, 3.5, 40}};
  const nlohmann::json report = Report(facts);
  EXPECT_EQ(report["run"], "topics");
  // All metrics are there, whatever the table shows.
  EXPECT_EQ(report["metrics"], (std::vector<std::string>{"macro_f1"}));
  EXPECT_EQ(report["mean"]["distilled"]["accuracy"], 1.0);
  EXPECT_TRUE(report["bootstrap"].is_null());
  EXPECT_FALSE(report["mean"]["distilled"].contains("intervals"));
  EXPECT_EQ(report["labels"]["count"], 12);
  EXPECT_EQ(report["labels"]["bytes"], 480);
  EXPECT_EQ(report["labels"]["codec"], "dense_fp16");
  EXPECT_EQ(report["teacher"], nlohmann::json::parse(R"({"name": "english", "package": "models/teacher-english",
      "digest": "ab", "parameters": 1234, "reads": "source_text"})"));
  EXPECT_EQ(report["student"]["workers"], 2);
  EXPECT_TRUE(report["student"]["parameters"].is_null());
  EXPECT_EQ(report["models"], nlohmann::json::parse(R"({
      "teacher": {"parameters": 1234, "bytes": 5000, "latency": {"batch_1": {"forward_ms": 3.0, "text_ms": 4.0}}},
      "student": {"parameters": null, "bytes": 50, "latency": {"batch_1": {"forward_ms": 0.125, "text_ms": 1.0}}},
      "speedup": {"batch_1": {"forward": 24.0, "text": 4.0}}})"));
  EXPECT_EQ(report["corpus"]["files"][0],
            nlohmann::json::parse(R"({"path": "a.parquet", "sha256": "ef", "bytes": 77})"));
  EXPECT_EQ(report["evictions"], nlohmann::json::parse(R"([{"job": "distilled", "worker": "w", "host": "10.7.0.2",
                                                            "pid": 71, "ratio": 3.5, "step": 40}])"));
  EXPECT_EQ(report["steps"], nlohmann::json::parse(R"({"distilled": {"taken": 70, "planned": 100}})"));
  EXPECT_EQ(report["seconds"], nlohmann::json::parse(R"({"index": 0.5, "distilled": 3.25})"));
}

TEST_F(ReportTest, ClassesIntervalsAndDifferences) {
  auto writer = PredictionsWriter::Create(predictions_, {"net", "devel", "av"}, {"gold", "distilled"});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const std::vector<float> net = {0.6f, 0.3f, 0.1f}, devel = {0.1f, 0.6f, 0.3f};
  ASSERT_TRUE((*writer)
                  ->Append({{"a", "de", "one", 0, {net, net}},
                            {"b", "de", "two", 1, {net, devel}},
                            {"c", "fr", "one", 0, {devel, net}},
                            {"d", "fr", "two", 2, {net, net}}})
                  .ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  RunFacts facts;
  facts.top_k = 2;
  facts.resamples = 200;
  facts.seed = 3;
  const nlohmann::json report = Report(facts);
  EXPECT_EQ(report["bootstrap"], nlohmann::json::parse(R"({"resamples": 200, "groups": 2, "seed": 3})"));
  const nlohmann::json& de = report["languages"]["de"];
  EXPECT_EQ(de["gold"]["top_k"], 1.0);
  EXPECT_EQ(report["languages"]["fr"]["gold"]["top_k"], 0.0);
  EXPECT_EQ(de["gold"]["classes"]["net"],
            nlohmann::json::parse(R"({"precision": 0.5, "recall": 1.0, "f1": 0.6666666666666666, "support": 1})"));
  EXPECT_FALSE(de["gold"]["classes"].contains("av"));
  // de: all right. fr: net right, av said to be net.
  EXPECT_EQ(report["mean"]["distilled"]["classes"]["net"]["precision"], (1 + 0.5) / 2);
  EXPECT_EQ(report["mean"]["distilled"]["classes"]["net"]["support"], 2);
  EXPECT_EQ(report["mean"]["distilled"]["classes"]["av"]["recall"], 0.0);
  EXPECT_EQ(report["differences"]["gold"]["accuracy"]["difference"], (1.0 + 0.5) / 2 - (0.5 + 0.0) / 2);
  EXPECT_FALSE(report["differences"].contains("distilled"));
  // Resamples: group one twice, both groups, group two twice. distilled in fr: 1, 0.5, 0.
  EXPECT_EQ(report["languages"]["fr"]["distilled"]["intervals"]["accuracy"], nlohmann::json::parse("[0.0, 1.0]"));
  EXPECT_EQ(de["distilled"]["intervals"]["accuracy"], nlohmann::json::parse("[1.0, 1.0]"));
  // distilled - gold of the mean: group one (0 + 1) / 2, group two (1 + 0) / 2, both ((1 - 1/2) + 1/2) / 2.
  EXPECT_EQ(report["differences"]["gold"]["accuracy"]["interval"], nlohmann::json::parse("[0.5, 0.5]"));
}

TEST_F(ReportTest, LabelsThatEachHoldOrNot) {
  auto writer = PredictionsWriter::Create(predictions_, {"net", "devel"}, {"distilled"}, v1::TASK_MULTI_LABEL);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)
                  ->Append({{"a", "de", "one", 0, {{0.9f, 0.9f}}, {1, 1}},
                            {"b", "de", "two", 0, {{0.9f, 0.5f}}, {0, 0}},
                            {"c", "de", "two", 0, {{0.1f, 0.1f}}, {0, 0}}})
                  .ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  RunFacts facts;
  facts.resamples = 200;
  const nlohmann::json report = Report(facts);
  EXPECT_EQ(report["task"], "multi_label");
  const nlohmann::json& scores = report["mean"]["distilled"];
  EXPECT_DOUBLE_EQ(scores["accuracy"], 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores["micro_f1"], 4.0 / 5);
  EXPECT_DOUBLE_EQ(scores["micro_precision"], 2.0 / 3);
  EXPECT_DOUBLE_EQ(scores["macro_f1"], (2.0 / 3 + 1) / 2);
  EXPECT_FALSE(scores.contains("top_k"));
  EXPECT_FALSE(scores["intervals"].contains("top_k"));
  EXPECT_EQ(scores["classes"]["devel"]["support"], 1);
  // Group one alone is right; group two alone, half.
  EXPECT_EQ(scores["intervals"]["accuracy"], nlohmann::json::parse("[0.5, 1.0]"));
}

TEST_F(ReportTest, AStopLeavesNoReport) {
  Write({Row("de", 0, 0)});
  std::stop_source stop;
  stop.request_stop();
  EXPECT_EQ(WriteReport({}, predictions_, report_, stop.get_token()).code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(fs::exists(report_));
}

TEST_F(ReportTest, NoRecordIsAnError) {
  Write({});
  const absl::Status status = WriteReport({}, predictions_, report_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("evaluate.where"));
  EXPECT_FALSE(fs::exists(report_));
}

}  // namespace
}  // namespace polystill::evaluation
