#include "student_worker/data_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <fstream>
#include <memory>
#include <optional>

#include "corpus/index.h"
#include "soft_labels/look_ahead.h"
#include "student_worker/tiny_job.h"

namespace polystill::student_worker {
namespace {

using soft_labels::LabelClient;
using testing::HasSubstr;

constexpr int kBatch = 16;
constexpr int kPrefetch = 3;

// A teacher whose answers the test gives when it wants.
class SlowTeacher {
 public:
  struct Asked {
    std::vector<v1::LabelInput> inputs;
    LabelClient::Callback callback;
  };

  void Ask(v1::LabelSpec, std::vector<v1::LabelInput> inputs, LabelClient::Callback callback) {
    MutexLock lock(&mutex_);
    asked_.push_back({std::move(inputs), std::move(callback)});
    changed_.NotifyAll();
  }

  // The i-th question, once it has been asked.
  Asked Take(size_t i) {
    MutexLock lock(&mutex_);
    while (asked_.size() <= i) changed_.Wait(&mutex_);
    return asked_[i];
  }

  size_t asked() {
    MutexLock lock(&mutex_);
    return asked_.size();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<Asked> asked_;
};

// Logits that tell which record they are for: its number, and minus that.
LabelClient::Labels AnswerTo(const std::vector<v1::LabelInput>& inputs) {
  LabelClient::Labels labels;
  LabelClient::Array& logits = labels.outputs.emplace_back();
  logits.width = 2;
  for (const v1::LabelInput& input : inputs) {
    const float number = std::stof(input.id().substr(1));
    logits.numbers.insert(logits.numbers.end(), {number, -number});
  }
  labels.bytes = static_cast<int64_t>(4 * logits.numbers.size());
  return labels;
}

class DataLoaderTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string folder = testing::TempDir() + "data_loader_test_XXXXXX";
    ASSERT_NE(mkdtemp(folder.data()), nullptr);
    folder_ = folder;
    options_.steps = 40;
    options_.prefetch = kPrefetch;
  }

  void AskTeacher() {
    DataLoader::LabelSource source;
    source.teacher = kKind.teacher;
    source.spec.set_codec(kKind.codec.codec);
    source.outputs = {{"logits", 2, false}};
    source.input = v1::Signature::INPUT_IDS;
    source.ask = [this](v1::LabelSpec spec, std::vector<v1::LabelInput> inputs, LabelClient::Callback callback) {
      teacher_.Ask(std::move(spec), std::move(inputs), std::move(callback));
    };
    options_.labels = {source};
  }

  std::unique_ptr<DataLoader> Start(bool reads_labels = true, corpus::Reader::Options reader = {}) {
    WriteTinyCorpus(folder_, 300);
    v1::Selection selection = TinySelection(folder_);
    selection.set_reads_labels(reads_labels);
    const auto index = std::make_shared<const v1::CorpusIndex>(*corpus::BuildIndex(selection));
    v1::PlanSegment segment = TinyTraining(folder_, 1).job().plan();
    segment.set_index_digest(corpus::IndexDigest(*index));
    plan_ = std::make_shared<const corpus::Plan>(*corpus::Plan::Create(segment, index));
    return std::make_unique<DataLoader>(options_, plan_, *corpus::Reader::Open(index, reader), nullptr);
  }

  static inline const LabelKind kKind = {"english", v1::CODEC_DENSE_FP32, "logits"};

  std::string folder_;
  DataLoader::Options options_;
  SlowTeacher teacher_;
  std::shared_ptr<const corpus::Plan> plan_;
};

TEST_F(DataLoaderTest, HiddenTokensAreAskedForAndHaveGoldWithoutLabels) {
  v1::Job job;
  job.set_task(v1::TASK_MASKED_LM);
  job.mutable_masking()->set_share(0.4);
  job.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
  job.mutable_tokenizer()->set_vocab_size(1000);
  job.mutable_tokenizer()->set_mask_id(0);
  options_.masker = *Masker::Of(job, nullptr);
  options_.task = v1::TASK_MASKED_LM;
  options_.needs_gold = true;
  AskTeacher();
  options_.labels[0].sends_tokens = true;
  options_.labels[0].outputs = {{"logits", 2, true}};
  const auto loader = Start(/*reads_labels=*/false);
  const SlowTeacher::Asked asked = teacher_.Take(0);
  LabelClient::Labels labels;
  labels.outputs.emplace_back().width = 2;
  for (const v1::LabelInput& input : asked.inputs)
    labels.outputs[0].numbers.resize(labels.outputs[0].numbers.size() + 2 * input.positions_size());
  asked.callback(labels);
  const auto batch = loader->Next({});
  ASSERT_TRUE(batch.ok()) << batch.status();
  ASSERT_EQ(batch->ids.size(), static_cast<size_t>(kBatch));
  size_t next = 0;
  for (size_t i = 0; i < batch->ids.size(); ++i) {
    EXPECT_FALSE(batch->positions[i].empty());
    EXPECT_THAT(asked.inputs[i].positions(), testing::ElementsAreArray(batch->positions[i]));
    EXPECT_THAT(asked.inputs[i].ids().ids(), testing::ElementsAreArray(batch->tokens[i]));
    for (const int32_t place : batch->positions[i]) {
      EXPECT_EQ(batch->tokens[i][place], 0);
      ASSERT_LT(next, batch->gold.size());
      EXPECT_GE(batch->gold[next++], 0);
    }
  }
  EXPECT_EQ(next, batch->gold.size());
}

TEST_F(DataLoaderTest, CountsHowOftenABlockIsRead) {
  const auto reads = [this](int64_t cache_bytes) {
    auto loader = Start(true, {cache_bytes});
    for (int64_t step = 0; step < options_.steps; ++step) EXPECT_TRUE(loader->Next({}).ok());
    return loader->ReadsPerBlock();
  };
  // 40 steps of 16 are begun passes number 1, 2 and 3 over 300 records: a block that is held is read in the first.
  EXPECT_DOUBLE_EQ(reads(int64_t{1} << 20), 1.0 / 3);
  EXPECT_GT(reads(1), 2);
}

TEST_F(DataLoaderTest, HandsOutThePlannedRecordsInOrder) {
  auto loader = Start();
  auto reader = *corpus::Reader::Open(std::make_shared<const v1::CorpusIndex>(plan_->index()));
  for (int64_t step = 0; step < options_.steps; ++step) {
    const auto batch = loader->Next({});
    ASSERT_TRUE(batch.ok()) << batch.status();
    const auto records = *reader->Read(plan_->Slice(step, 0, kBatch));
    ASSERT_EQ(batch->ids.size(), kBatch);
    EXPECT_EQ(batch->step, step);
    for (int i = 0; i < kBatch; ++i) {
      EXPECT_EQ(batch->ids[i], records[i].id);
      EXPECT_EQ(batch->tokens[i], records[i].ids);
      EXPECT_EQ(batch->gold[i], records[i].label);
    }
  }
}

TEST_F(DataLoaderTest, SlicesOfAllRanksMakeTheBatch) {
  options_.world_size = 3;
  std::vector<std::string> together;
  for (options_.rank = 0; options_.rank < 3; ++options_.rank) {
    const auto batch = Start()->Next({});
    ASSERT_TRUE(batch.ok()) << batch.status();
    together.insert(together.end(), batch->ids.begin(), batch->ids.end());
  }
  options_.rank = 0;
  options_.world_size = 1;
  EXPECT_EQ(together, Start()->Next({})->ids);
}

TEST_F(DataLoaderTest, LabelsThatComeInAnyOrderMeetTheirRecords) {
  AskTeacher();
  auto loader = Start();
  for (int i = kPrefetch - 1; i >= 0; --i) {
    const auto asked = teacher_.Take(i);
    asked.callback(AnswerTo(asked.inputs));
  }
  for (int64_t step = 0; step < kPrefetch; ++step) {
    const auto batch = loader->Next({});
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_EQ(batch->step, step);
    EXPECT_EQ(batch->label_count, kBatch);
    EXPECT_EQ(batch->label_bytes, kBatch * 2 * 4);
    const std::vector<float>& logits = batch->labels.at(kKind).numbers;
    for (int i = 0; i < kBatch; ++i) EXPECT_EQ("r" + std::to_string(static_cast<int>(logits[2 * i])), batch->ids[i]);
  }
}

// Logits and hidden states of a teacher come in one answer, to the token ids that the student reads.
TEST_F(DataLoaderTest, OutputsOfTokensComeForTheStudentsOwnIds) {
  AskTeacher();
  options_.labels[0].outputs.push_back({"hidden.1", 1, true});
  options_.labels[0].sends_tokens = true;
  options_.labels[0].input = v1::Signature::INPUT_TEXT;
  auto loader = Start();
  const auto asked = teacher_.Take(0);
  LabelClient::Labels answer = AnswerTo(asked.inputs);
  answer.outputs.push_back({{}, 1});
  for (const v1::LabelInput& input : asked.inputs) {
    answer.outputs[1].numbers.insert(answer.outputs[1].numbers.end(), input.ids().ids().begin(),
                                     input.ids().ids().end());
  }
  asked.callback(answer);
  const auto batch = loader->Next({});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->label_count, kBatch);
  const Labels& hidden = batch->labels.at({"english", v1::CODEC_DENSE_FP32, "hidden.1"});
  EXPECT_EQ(hidden.rows, RowsOf::kTokens);
  std::vector<float> ids;
  for (const auto& tokens : batch->tokens) ids.insert(ids.end(), tokens.begin(), tokens.end());
  EXPECT_EQ(hidden.numbers, ids);
  const auto second = teacher_.Take(1);
  LabelClient::Labels short_one = AnswerTo(second.inputs);
  short_one.outputs.push_back({std::vector<float>(kBatch), 1});
  second.callback(short_one);
  EXPECT_THAT(loader->Next({}).status().ToString(), HasSubstr("expected hidden.1 [96, 1], got 16 numbers"));
  const auto third = teacher_.Take(2);
  third.callback(AnswerTo(third.inputs));  // must still be taken, though nobody waits for it
}

TEST_F(DataLoaderTest, AsksNoFurtherAheadThanItMay) {
  AskTeacher();
  auto loader = Start();
  for (size_t step = 0; step < 20; ++step) {
    const auto asked = teacher_.Take(step);
    EXPECT_LE(teacher_.asked(), step + kPrefetch);
    asked.callback(AnswerTo(asked.inputs));
    ASSERT_TRUE(loader->Next({}).ok());
  }
}

TEST_F(DataLoaderTest, RecordsAndLabelsDoNotDependOnHowFarItLooksAhead) {
  AskTeacher();
  options_.labels[0].ask = [](v1::LabelSpec, std::vector<v1::LabelInput> inputs, LabelClient::Callback callback) {
    callback(AnswerTo(inputs));
  };
  std::vector<std::pair<std::vector<std::string>, std::vector<float>>> expected;
  for (const int prefetch : {1, 64, 0}) {
    options_.prefetch = prefetch;
    auto loader = Start();
    for (int64_t step = 0; step < options_.steps; ++step) {
      const auto batch = loader->Next({});
      ASSERT_TRUE(batch.ok()) << batch.status();
      const std::pair seen = {batch->ids, batch->labels.at(kKind).numbers};
      if (prefetch == 1) expected.push_back(seen);
      EXPECT_EQ(seen, expected[step]) << prefetch << ' ' << step;
    }
    if (prefetch > 0) {
      EXPECT_EQ(loader->prefetch(), prefetch);
    } else {
      EXPECT_GE(loader->prefetch(), soft_labels::kLeastLookAhead);
      EXPECT_LE(loader->prefetch(), soft_labels::kMostLookAhead);
    }
  }
}

TEST_F(DataLoaderTest, AnEmptySliceIsABatchWithoutQuestions) {
  options_.world_size = kBatch + 1;
  const auto is_empty = [&](int rank) {
    const auto range = corpus::Plan::SliceOf(kBatch, rank, kBatch + 1);
    return range.first == range.last;
  };
  while (!is_empty(options_.rank)) ++options_.rank;
  AskTeacher();
  auto loader = Start();
  for (int64_t step = 0; step < options_.steps; ++step) {
    const auto batch = loader->Next({});
    ASSERT_TRUE(batch.ok()) << batch.status();
    EXPECT_TRUE(batch->ids.empty());
    EXPECT_TRUE(batch->labels.at(kKind).numbers.empty());
    EXPECT_EQ(batch->labels.at(kKind).width, 2);
  }
  EXPECT_EQ(teacher_.asked(), 0);
}

TEST_F(DataLoaderTest, AnErrorComesAfterTheBatchesBeforeIt) {
  AskTeacher();
  auto loader = Start();
  teacher_.Take(1).callback(absl::InvalidArgumentError("record 'r9': logits are not finite"));
  const auto first = teacher_.Take(0);
  first.callback(AnswerTo(first.inputs));
  EXPECT_TRUE(loader->Next({}).ok());
  const absl::Status status = loader->Next({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 1: labels of teacher english: record 'r9'"));
}

TEST_F(DataLoaderTest, RefusesLabelsThatDoNotFitTheRecords) {
  AskTeacher();
  auto loader = Start();
  const auto asked = teacher_.Take(0);
  LabelClient::Labels labels = AnswerTo(asked.inputs);
  labels.outputs[0].numbers.resize(2 * kBatch - 2);
  asked.callback(labels);
  const absl::Status status = loader->Next({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected logits [16, 2]"));
}

TEST_F(DataLoaderTest, NamesARecordWhoseLabelIsNeededAndNotRead) {
  options_.needs_gold = true;
  const absl::Status status = Start(/*reads_labels=*/false)->Next({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("step 0: record 'r"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has no label"));
}

TEST_F(DataLoaderTest, AStopEndsTheWait) {
  AskTeacher();
  auto loader = Start();
  std::stop_source stop;
  std::jthread stopper([&] {
    teacher_.Take(0);
    stop.request_stop();
  });
  EXPECT_EQ(loader->Next(stop.get_token()).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(DataLoaderTest, LabelsThatAreOnTheirWayWhenTheStopComesAreWaitedForIfAsked) {
  AskTeacher();
  options_.stop_patience = std::chrono::minutes(1);
  auto loader = Start();
  std::stop_source stop;
  stop.request_stop();
  std::jthread teacher([&] {
    const auto asked = teacher_.Take(0);
    asked.callback(AnswerTo(asked.inputs));
  });
  const auto batch = loader->Next(stop.get_token());
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->step, 0);
}

TEST_F(DataLoaderTest, BeginsAtTheStepOfTheCheckpoint) {
  const auto from_the_start = Start();
  for (int step = 0; step < 2; ++step) ASSERT_TRUE(from_the_start->Next({}).ok());
  options_.first_step = 2;
  const auto batch = Start()->Next({});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_EQ(batch->step, 2);
  EXPECT_EQ(batch->ids, from_the_start->Next({})->ids);
}

// Of a record of three token ids two have labels, of another none has.
TEST_F(DataLoaderTest, AsksForTheTokensThatAreJudged) {
  std::ofstream(folder_ + "/corpus.jsonl") << R"({"id":"r1","language":"de","ids":[1,2,3],"label":["low",null,"high"]})"
                                           << "\n"
                                           << R"({"id":"r2","language":"de","ids":[4,5],"label":[null,null]})"
                                           << "\n";
  v1::Selection selection = TinySelection(folder_);
  selection.mutable_corpus()->set_path(folder_ + "/corpus.jsonl");
  selection.set_task(v1::TASK_TOKEN_CLASSIFICATION);
  const auto index = std::make_shared<const v1::CorpusIndex>(*corpus::BuildIndex(selection));
  v1::PlanSegment segment;
  segment.set_algorithm(2);
  segment.set_batch_size(4);
  segment.set_index_digest(corpus::IndexDigest(*index));
  AskTeacher();
  options_.labels[0].outputs[0].of_tokens = true;
  options_.labels[0].sends_tokens = true;
  options_.task = v1::TASK_TOKEN_CLASSIFICATION;
  options_.needs_gold = true;
  options_.steps = 1;
  DataLoader loader(options_, std::make_shared<const corpus::Plan>(*corpus::Plan::Create(segment, index)),
                    *corpus::Reader::Open(index), nullptr);
  const SlowTeacher::Asked asked = teacher_.Take(0);
  ASSERT_EQ(asked.inputs.size(), 2u);  // a step of four has each record twice
  LabelClient::Labels answer;
  answer.outputs = {{{}, 2}};
  for (const v1::LabelInput& input : asked.inputs) {
    EXPECT_EQ(input.id(), "r1");
    EXPECT_THAT(input.ids().ids(), testing::ElementsAre(1, 2, 3));
    EXPECT_THAT(input.positions(), testing::ElementsAre(0, 2));
    answer.outputs[0].numbers.insert(answer.outputs[0].numbers.end(), {1, 2, 3, 4});
  }
  asked.callback(answer);
  const auto batch = loader.Next({});
  ASSERT_TRUE(batch.ok()) << batch.status();
  EXPECT_THAT(batch->gold, testing::ElementsAre(0, 1, 0, 1));
  EXPECT_EQ(batch->CountRows(RowsOf::kJudged), 4);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(batch->positions[i].size(), batch->ids[i] == "r1" ? 2u : 0u);
}

}  // namespace
}  // namespace polystill::student_worker
