#include "evaluation/predictions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "runtime/files.h"

namespace polystill::evaluation {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PredictionsTest : public testing::Test {
 protected:
  PredictionsTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("predictions_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    path_ = (folder_ / "predictions.parquet").string();
  }
  ~PredictionsTest() override { fs::remove_all(folder_); }

  std::unique_ptr<PredictionsWriter> Writer() {
    auto writer = PredictionsWriter::Create(path_, {"net", "devel"}, {"zero_shot", "distilled"});
    EXPECT_TRUE(writer.ok()) << writer.status();
    return std::move(*writer);
  }

  fs::path folder_;
  std::string path_;
};

Prediction Row(const std::string& id, int gold) {
  return {id, "de", "group of " + id, gold, {{0.25f, 0.75f}, {0.5f, 0.5f}}};
}

TEST_F(PredictionsTest, ReadsBackWhatWasWritten) {
  auto writer = Writer();
  ASSERT_TRUE(writer->Append({Row("a", 0), Row("b", 1)}).ok());
  ASSERT_TRUE(writer->Append({Row("c", 1)}).ok());
  ASSERT_TRUE(writer->Finish().ok());

  auto reader = PredictionsReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_THAT((*reader)->labels(), testing::ElementsAre("net", "devel"));
  EXPECT_THAT((*reader)->models(), testing::ElementsAre("zero_shot", "distilled"));
  std::vector<Prediction> all;
  while (true) {
    auto rows = (*reader)->Next();
    ASSERT_TRUE(rows.ok()) << rows.status();
    if (rows->empty()) break;
    all.insert(all.end(), rows->begin(), rows->end());
  }
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].id, "a");
  EXPECT_EQ(all[0].gold, 0);
  EXPECT_EQ(all[1].gold, 1);
  EXPECT_EQ(all[2].gold, 1);
  EXPECT_EQ(all[2].language, "de");
  EXPECT_EQ(all[2].group, "group of c");
  EXPECT_EQ(all[2].probabilities, Row("c", 1).probabilities);
}

TEST_F(PredictionsTest, LabelsThatHoldAndWords) {
  for (const v1::Task task : {v1::TASK_MULTI_LABEL, v1::TASK_TOKEN_CLASSIFICATION}) {
    auto writer = PredictionsWriter::Create(path_, {"net", "devel"}, {"zero_shot", "distilled"}, task);
    ASSERT_TRUE(writer.ok()) << writer.status();
    std::vector<Prediction> written = {Row("a", 1), Row("b", 0), Row("b", 0)};
    for (int i = 0; i < 3; ++i) {
      if (task == v1::TASK_MULTI_LABEL) written[i].labels = {i % 2, i / 2};
      if (task == v1::TASK_TOKEN_CLASSIFICATION) written[i].position = i + 7;
    }
    ASSERT_TRUE((*writer)->Append(written).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    auto reader = PredictionsReader::Open(path_);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ((*reader)->task(), task);
    const auto rows = (*reader)->Next();
    ASSERT_TRUE(rows.ok()) << rows.status();
    ASSERT_EQ(rows->size(), 3u);
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ((*rows)[i].labels, written[i].labels);
      EXPECT_EQ((*rows)[i].position, written[i].position);
      EXPECT_EQ((*rows)[i].gold, task == v1::TASK_MULTI_LABEL ? 0 : written[i].gold);
    }
  }
  auto writer = PredictionsWriter::Create(path_, {"net", "devel"}, {"zero_shot", "distilled"}, v1::TASK_MULTI_LABEL);
  EXPECT_THAT(std::string((*writer)->Append({Row("few", 0)}).message()), HasSubstr("record few: says of 0 labels"));
}

TEST_F(PredictionsTest, GuessesOfHiddenTokens) {
  auto writer = PredictionsWriter::Create(path_, {}, {"zero_shot", "distilled"}, v1::TASK_MASKED_LM);
  ASSERT_TRUE(writer.ok()) << writer.status();
  Prediction row = {"a", "de", "g", 4711, {}, {}, 5, {{4711, 0, -0.25f}, {12, 3, -7.5f}}};
  ASSERT_TRUE((*writer)->Append({row}).ok());
  row.guesses.pop_back();
  EXPECT_THAT((*writer)->Append({row}).ToString(), HasSubstr("record a: guesses of 1 models, not 2"));
  ASSERT_TRUE((*writer)->Finish().ok());
  auto reader = PredictionsReader::Open(path_);
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_EQ((*reader)->task(), v1::TASK_MASKED_LM);
  const std::vector<Prediction> rows = (*reader)->Next().value();
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0].gold, 4711);
  EXPECT_EQ(rows[0].position, 5);
  ASSERT_EQ(rows[0].guesses.size(), 2u);
  EXPECT_EQ(rows[0].guesses[1].token, 12);
  EXPECT_EQ(rows[0].guesses[1].rank, 3);
  EXPECT_EQ(rows[0].guesses[1].log_probability, -7.5f);
}

TEST_F(PredictionsTest, NothingStaysOfAnUnfinishedFile) {
  auto writer = Writer();
  ASSERT_TRUE(writer->Append({Row("a", 0)}).ok());
  EXPECT_FALSE(fs::exists(path_));
  writer.reset();
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(PredictionsTest, RefusesRowsThatDoNotFit) {
  auto writer = Writer();
  Prediction row = Row("short", 0);
  row.probabilities[1].pop_back();
  EXPECT_THAT(std::string(writer->Append({row}).message()), HasSubstr("record short"));
  EXPECT_THAT(std::string(writer->Append({Row("bad", 2)}).message()), HasSubstr("record bad: gold class 2"));
  EXPECT_THAT(std::string(writer->Append({Row("none", -1)}).message()), HasSubstr("record none: gold class -1"));
  row = Row("few", 0);
  row.probabilities.pop_back();
  EXPECT_THAT(std::string(writer->Append({row}).message()), HasSubstr("predictions of 1 models, not 2"));
}

TEST_F(PredictionsTest, FilesThatAreNone) {
  EXPECT_EQ(PredictionsReader::Open(path_).status().code(), absl::StatusCode::kNotFound);
  fs::create_directories(folder_);
  std::ofstream(path_) << "not Parquet at all";
  const absl::Status status = PredictionsReader::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
}

TEST(Predictions, FullDiskIsNamed) {
  // Every write to /dev/full fails with ENOSPC; the writer's temporary name is led there by a link.
  const fs::path folder = fs::path(testing::TempDir()) / "predictions_full";
  fs::remove_all(folder);
  fs::create_directories(folder);
  const std::string path = (folder / "p.parquet").string();
  fs::create_symlink("/dev/full", TemporaryOf(path));
  auto writer = PredictionsWriter::Create(path, {"a"}, {"m"});
  absl::Status status = writer.status();
  if (status.ok()) status = (*writer)->Append({{"id", "de", "", 0, {{1.0f}}}});
  if (status.ok()) status = (*writer)->Finish();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

}  // namespace
}  // namespace polystill::evaluation
