#include "student_worker/masker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

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
