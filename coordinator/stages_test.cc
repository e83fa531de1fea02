#include "coordinator/stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/run_file.h"
#include "corpus/index.h"
#include "runtime/files.h"
#include "runtime/sha256.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

// A corpus of token ids: so many records of each language, split and pool.
struct Part {
  std::string language;
  std::string split;
  std::string pool;
  int records;
};

class StagesTest : public testing::Test {
 protected:
  StagesTest() {
    folder_ = fs::path(testing::TempDir()) /
              (std::string("stages_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    fs::remove_all(folder_);
    WriteCorpus({{"en", "train", "A", 20},
                 {"de", "train", "B", 30},
                 {"fr", "train", "B", 10},
                 {"de", "test", "", 7},
                 {"fr", "test", "", 5},
                 {"en", "test", "", 3}});
  }
  ~StagesTest() override { fs::remove_all(folder_); }

  void WriteCorpus(const std::vector<Part>& parts) {
    std::string lines;
    for (const Part& part : parts) {
      for (int i = 0; i < part.records; ++i) {
        absl::StrAppend(&lines, R"({"id": ")", part.language, part.split, i, R"(", "language": ")", part.language,
                        R"(", "split": ")", part.split, R"(", "pool": ")", part.pool, R"(", "label": ")",
                        i % 2 == 0 ? "net" : "devel", R"(", "ids": [)", i, R"(, 1], "source_ids": [)", i, "]}\n");
      }
    }
    ASSERT_TRUE(WriteFileAtomically((folder_ / "corpus" / "a.jsonl").string(), lines).ok());
  }

  v1::RunSpec Spec(const std::string& tokenizer = "{kind: ids, vocab_size: 100}", const std::string& more = "") {
    const std::string yaml = absl::StrCat(R"(
version: 1
name: stages
output: )",
                                          (folder_ / "run").string(), R"(
corpus: {path: )",
                                          (folder_ / "corpus").string(), R"(, labels: [net, devel]}
tokenizer: )",
                                          tokenizer, R"(
teachers:
  - {name: english, reads: source_text, train: {where: {language: en, pool: A}, batch_size: 4, epochs: 2}}
student:
  where: {pool: B}
  losses: [{kind: soft_label}]
  batch_size: 8
  epochs: 3
baselines: [no_teacher, gold]
)",
                                          more);
    const std::string path = (folder_ / "run.yaml").string();
    EXPECT_TRUE(WriteFileAtomically(path, yaml).ok());
    const auto file = ReadRunFile(path, {});
    EXPECT_TRUE(file.ok()) << file.status();
    return file.ok() ? file->spec : v1::RunSpec();
  }

  absl::StatusOr<Stages> Run(const v1::RunSpec& spec) {
    return RunStages(
        spec, [this](StageProgress update) { progress_.push_back(std::move(update)); }, stop_);
  }

  fs::path folder_;
  std::vector<StageProgress> progress_;
  std::atomic<bool> stop_ = false;
};

const PlannedJob* Find(const Stages& stages, const std::string& name) {
  for (const PlannedJob& planned : stages.prepared.jobs) {
    if (planned.job.name() == name) return &planned;
  }
  return nullptr;
}

TEST_F(StagesTest, EarlyStoppingGetsTheIndexOfItsHeldOutRecords) {
  WriteCorpus({{"en", "train", "A", 20}, {"de", "train", "B", 30}, {"de", "dev", "", 9}, {"de", "test", "", 7}});
  v1::RunSpec spec = Spec();
  spec.add_baselines(v1::BASELINE_GOLD_ALL);
  auto& early_stopping = *spec.mutable_student()->mutable_early_stopping();
  early_stopping.set_every(2);
  (*early_stopping.mutable_where())["split"] = "dev";
  const auto stages = Run(spec);
  ASSERT_TRUE(stages.ok()) << stages.status();
  for (const char* name : {"distilled", "gold", "gold_all"}) {
    const v1::Job& job = Find(*stages, name)->job;
    const auto index = stages->indexes.find(job.validation_index_digest());
    ASSERT_NE(index, stages->indexes.end()) << name;
    ASSERT_EQ(index->second->languages_size(), 1);
    EXPECT_EQ(index->second->languages(0).records(), 9);
    EXPECT_TRUE(index->second->selection().reads_labels());
    EXPECT_FALSE(index->second->selection().reads_source_text());
  }
  EXPECT_EQ(Find(*stages, "teacher:english")->job.validation_index_digest(), "");
}

TEST_F(StagesTest, WhatIsWrongWithTheRecordsSaysWhoNeedsThem) {
  WriteCorpus({{"en", "train", "A", 20}, {"de", "train", "B", 30}, {"en", "test", "", 7}});
  EXPECT_THAT(std::string(Run(Spec()).status().message()), StartsWith("evaluate: "));
  v1::RunSpec spec = Spec();
  (*spec.mutable_teachers(0)->mutable_train()->mutable_where())["pool"] = "C";
  EXPECT_THAT(std::string(Run(spec).status().message()), StartsWith("teacher:english: "));
}

TEST_F(StagesTest, JobsGetTheirStepsAndPlan) {
  const auto stages = Run(Spec());
  ASSERT_TRUE(stages.ok()) << stages.status();
  const PlannedJob* teacher = Find(*stages, "teacher:english");
  ASSERT_NE(teacher, nullptr);
  EXPECT_EQ(teacher->job.steps(), 20 * 2 / 4);
  EXPECT_EQ(teacher->job.plan().batch_size(), 4);
  EXPECT_EQ(teacher->job.plan().algorithm(), 2);
  const PlannedJob* distilled = Find(*stages, "distilled");
  ASSERT_NE(distilled, nullptr);
  EXPECT_EQ(distilled->job.steps(), 40 * 3 / 8);
  EXPECT_EQ(stages->prepared.totals.at("distilled"), 15);
  const auto index = stages->indexes.at(distilled->job.plan().index_digest());
  EXPECT_EQ(index->languages_size(), 2);
  EXPECT_FALSE(index->selection().reads_labels());
}

TEST_F(StagesTest, UniMaxSharesOutWhatItsCapsGiveAndSaysSo) {
  v1::RunSpec spec = Spec();
  v1::Mixture& mixture = *spec.mutable_student()->mutable_languages()->mutable_mixture();
  mixture.set_kind(v1::Mixture::KIND_UNIMAX);
  mixture.set_max_epochs(6);
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_st>(log)));
  const auto enough = Run(spec);
  EXPECT_EQ(log.str(), "");
  mixture.set_max_epochs(2);
  const auto shortened = Run(spec);
  spdlog::set_default_logger(before);
  ASSERT_TRUE(enough.ok()) << enough.status();
  EXPECT_EQ(Find(*enough, "distilled")->job.plan().budget(), 120);  // 3 epochs of 40 records
  EXPECT_EQ(Find(*enough, "distilled")->job.steps(), 15);
  ASSERT_TRUE(shortened.ok()) << shortened.status();
  EXPECT_EQ(Find(*shortened, "distilled")->job.plan().budget(), 80);
  EXPECT_EQ(Find(*shortened, "distilled")->job.steps(), 10);
  EXPECT_THAT(log.str(), HasSubstr("distilled: shortened from 120 records to 80"));
  EXPECT_THAT(log.str(), HasSubstr("gold: shortened"));
}

TEST_F(StagesTest, TheEvaluationCoversTheStudentsLanguages) {
  const auto stages = Run(Spec());
  ASSERT_TRUE(stages.ok()) << stages.status();
  const PlannedJob* evaluate = Find(*stages, "evaluate");
  ASSERT_NE(evaluate, nullptr);
  EXPECT_THAT(evaluate->job.selection().languages(), testing::ElementsAre("de", "fr"));
  EXPECT_EQ(stages->prepared.totals.at("evaluate"), 12);
  const auto index = stages->indexes.at(evaluate->job.plan().index_digest());
  EXPECT_EQ(index->languages(0).records(), 7);
  EXPECT_EQ(index->languages(1).records(), 5);
}

TEST_F(StagesTest, TargetsOfTheRunFileAreEvaluated) {
  v1::RunSpec spec = Spec();
  spec.mutable_student()->mutable_languages()->add_targets("fr");
  const auto stages = Run(spec);
  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_THAT(Find(*stages, "evaluate")->job.selection().languages(), testing::ElementsAre("fr"));
}

TEST_F(StagesTest, EqualSelectionsShareAnIndexAndProgressCountsEachOnce) {
  const auto stages = Run(Spec());
  ASSERT_TRUE(stages.ok()) << stages.status();
  // distilled (labels unread), gold (labels read), the teacher's, no_teacher's (the same), the evaluation's.
  EXPECT_EQ(Find(*stages, "teacher:english")->job.plan().index_digest(),
            Find(*stages, "no_teacher")->job.plan().index_digest());
  EXPECT_EQ(stages->indexes.size(), 4u);
  ASSERT_FALSE(progress_.empty());
  EXPECT_EQ(progress_.front().stage, "index");
  EXPECT_EQ(progress_.front().records, 0);
  EXPECT_EQ(progress_.back().records, 40 + 20 + 12);
  EXPECT_EQ(progress_.back().records_by_language.at("en"), 20);
}

TEST_F(StagesTest, GoldAllHasEachRecordOfStudentAndTeacherOnce) {
  v1::RunSpec spec = Spec();
  spec.add_baselines(v1::BASELINE_GOLD_ALL);
  // The student's records hold the teacher's too: 20 of English, which must not be there twice.
  (*spec.mutable_student()->mutable_where()).erase("pool");
  const auto stages = Run(spec);
  ASSERT_TRUE(stages.ok()) << stages.status();
  const PlannedJob* all = Find(*stages, "gold_all");
  ASSERT_NE(all, nullptr);
  const int64_t steps = (60 * 3 + 8 - 1) / 8;  // 60 records, and the last step filled up
  EXPECT_EQ(all->job.steps(), steps);
  const auto index = stages->indexes.at(all->job.plan().index_digest());
  ASSERT_EQ(index->languages_size(), 3);
  EXPECT_EQ(index->languages(1).name(), "en");
  EXPECT_EQ(index->languages(1).records(), 20);
  // Without that overlap: the teacher's 20 beside the student's 40.
  spec = Spec();
  spec.add_baselines(v1::BASELINE_GOLD_ALL);
  const auto apart = Run(spec);
  ASSERT_TRUE(apart.ok()) << apart.status();
  EXPECT_EQ(Find(*apart, "gold_all")->job.steps(), steps);
  EXPECT_EQ(Find(*apart, "gold")->job.steps(), (30 + 10) * 3 / 8);
}

TEST_F(StagesTest, IndexBytesReadBackToTheSameDigest) {
  const auto stages = Run(Spec());
  ASSERT_TRUE(stages.ok()) << stages.status();
  for (const auto& [digest, index] : stages->indexes) {
    v1::CorpusIndex read;
    ASSERT_TRUE(read.ParseFromString(IndexBytes(*index)));
    EXPECT_EQ(corpus::IndexDigest(read), digest);
  }
}

TEST_F(StagesTest, AGivenTokenizerIsCopiedIntoTheRun) {
  const std::string model = (folder_ / "my.model").string();
  const std::string content =
      R"({"model": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##",)"
      R"( "max_input_chars_per_word": 100, "vocab": {"?": 0}}, "pre_tokenizer": {"type": "BertPreTokenizer"}})";
  ASSERT_TRUE(WriteFileAtomically(model, content).ok());
  const v1::RunSpec spec = Spec();
  v1::RunSpec with_model = spec;
  with_model.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_SENTENCEPIECE);
  with_model.mutable_tokenizer()->set_path(model);
  with_model.mutable_corpus()->mutable_columns()->set_text("id");
  with_model.mutable_corpus()->mutable_columns()->set_source_text("id");
  const auto stages = Run(with_model);
  ASSERT_TRUE(stages.ok()) << stages.status();
  EXPECT_EQ(*ReadFile(TokenizerFolder(with_model) + "/tokenizer.json"), content);
  std::vector<std::string> inputs;
  for (const RunInput& input : stages->prepared.inputs) inputs.push_back(input.key + " " + input.digest);
  const std::string digest = Sha256Hex(content);
  EXPECT_THAT(inputs, testing::ElementsAre("tokenizer.path " + digest, "tokenizer " + digest));
}

TEST_F(StagesTest, WhatIsWrongWithTheCorpusIsNamed) {
  ASSERT_TRUE(WriteFileAtomically((folder_ / "corpus" / "b.jsonl").string(), "{\"id\": \n").ok());
  const auto stages = Run(Spec());
  ASSERT_FALSE(stages.ok());
  EXPECT_THAT(std::string(stages.status().message()), HasSubstr("b.jsonl"));
}

TEST_F(StagesTest, StopIsHeard) {
  const v1::RunSpec spec = Spec();
  stop_ = true;
  EXPECT_EQ(Run(spec).status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace polystill::coordinator
