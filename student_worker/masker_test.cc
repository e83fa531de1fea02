#include "student_worker/masker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "runtime/files.h"

namespace polystill::student_worker {
namespace {

v1::Job SomeJob(v1::Task task) {
  v1::Job job;
  job.set_task(task);
  job.set_seed(5);
  job.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
  job.mutable_tokenizer()->set_vocab_size(200);
  job.mutable_tokenizer()->set_mask_id(3);
  job.mutable_masking()->set_share(0.3);
  return job;
}

std::vector<int32_t> Row() {
  std::vector<int32_t> ids(40);
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

TEST(MaskerTest, GoldIsWhatStoodAtThePositions) {
  const Masker masker = **Masker::Of(SomeJob(v1::TASK_MASKED_LM), nullptr);
  EXPECT_EQ(masker.mask_id(), 3);
  std::vector<int32_t> ids = Row();
  const JudgedTokens judged = masker.HideInStep(7, 2, &ids);
  EXPECT_EQ(judged.positions, judged.words);
  ASSERT_EQ(judged.positions.size(), judged.gold.size());
  ASSERT_EQ(judged.positions.size(), 12u);
  for (size_t i = 0; i < judged.positions.size(); ++i) {
    EXPECT_EQ(ids[judged.positions[i]], 3);
    EXPECT_EQ(judged.gold[i], Row()[judged.positions[i]]);
  }
}

// [CLS] and [SEP] stand where they stood, and what is hidden does not depend on them.
TEST(MaskerTest, WhatStandsAroundTextsIsNeverHidden) {
  const std::string file = testing::TempDir() + "masker_test.json";
  ASSERT_TRUE(WriteFileAtomically(file, R"({"model": {"type": "WordPiece", "unk_token": "[CLS]",
      "continuing_subword_prefix": "##", "max_input_chars_per_word": 9, "vocab": {"[CLS]": 0, "[SEP]": 1, "[MASK]": 2}},
      "pre_tokenizer": {"type": "BertPreTokenizer"},
      "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 0], "sep": ["[SEP]", 1]}})")
                  .ok());
  const auto tokenizer = corpus::Tokenizer::Load(file, 50);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  v1::Job job = SomeJob(v1::TASK_MASKED_LM);
  const Masker masker = **Masker::Of(job, tokenizer->get());
  job.mutable_tokenizer()->set_mask_id(2);
  job.mutable_tokenizer()->set_vocab_size(3);
  std::vector<int32_t> ids = Row(), bare = Row();
  ids.insert(ids.begin(), 0);
  ids.push_back(1);
  const JudgedTokens judged = masker.HideInStep(7, 2, &ids);
  std::vector<int32_t> expected = (*Masker::Of(job, nullptr))->HideInStep(7, 2, &bare).positions;
  for (int32_t& position : expected) ++position;
  EXPECT_EQ(judged.positions, expected);
  bare.insert(bare.begin(), 0);
  bare.push_back(1);
  EXPECT_EQ(ids, bare);
  std::vector<int32_t> empty = {0, 1};
  EXPECT_TRUE(masker.HideInStep(7, 2, &empty).positions.empty());
  EXPECT_EQ(empty, (std::vector<int32_t>{0, 1}));
}

TEST(MaskerTest, TrainingHidesAnewAndMeasuringDoesNot) {
  const Masker masker = **Masker::Of(SomeJob(v1::TASK_MASKED_LM), nullptr);
  const auto in_step = [&](int64_t step, int64_t position) {
    std::vector<int32_t> ids = Row();
    return masker.HideInStep(step, position, &ids).positions;
  };
  EXPECT_EQ(in_step(7, 2), in_step(7, 2));
  EXPECT_NE(in_step(7, 2), in_step(8, 2));
  EXPECT_NE(in_step(7, 2), in_step(7, 3));
  // Two seeds measure the same.
  v1::Job other = SomeJob(v1::TASK_MASKED_LM);
  other.set_seed(6);
  std::vector<int32_t> ids = Row(), same = Row(), another = Row();
  masker.HideInRecord("a", &ids);
  (*Masker::Of(other, nullptr))->HideInRecord("a", &same);
  masker.HideInRecord("b", &another);
  EXPECT_EQ(ids, same);
  EXPECT_NE(ids, another);
}

TEST(MaskerTest, OtherTasksHideNothing) {
  EXPECT_FALSE(Masker::Of(SomeJob(v1::TASK_CLASSIFICATION), nullptr)->has_value());
}

}  // namespace
}  // namespace polystill::student_worker
