#include "student_worker/loss_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace polystill::student_worker {
namespace {

using testing::ElementsAre;

v1::Job JobOf(v1::Task task, const std::vector<v1::LossKind>& kinds) {
  v1::Job job;
  job.set_task(task);
  job.mutable_plan()->set_batch_size(64);
  for (const v1::LossKind kind : kinds) job.add_losses()->set_kind(kind);
  return job;
}

// Records of 2, 0 and 3 tokens.
Batch ThreeRecords() {
  Batch batch;
  batch.ids = {"a", "b", "c"};
  batch.tokens = {{1, 2}, {}, {3, 4, 5}};
  batch.gold = {0, 1, 0};
  return batch;
}

TEST(BatchTest, RowsFollowTheTokens) {
  Batch batch = ThreeRecords();
  EXPECT_EQ(batch.CountRows(RowsOf::kRecords), 3);
  EXPECT_EQ(batch.CountRows(RowsOf::kTokens, 1, 3), 3);
  EXPECT_EQ(batch.CountRows(RowsOf::kTokens, 0, 2), 2);
  EXPECT_EQ(batch.CountRows(RowsOf::kJudged, 0, 2), 2);
  batch.judges_tokens = true;
  EXPECT_EQ(batch.CountRows(RowsOf::kJudged), 5);
  batch.positions = {{1}, {}, {0, 2}};
  EXPECT_EQ(batch.CountRows(RowsOf::kJudged), 3);
  EXPECT_EQ(batch.CountRows(RowsOf::kJudged, 2, 3), 2);
  EXPECT_EQ(batch.CountRows(RowsOf::kTokens), 5);
}

TEST(LossRowsTest, EachLossHasItsOwn) {
  const std::vector<v1::LossKind> kinds = {v1::LOSS_KIND_TASK, v1::LOSS_KIND_SOFT_LABEL, v1::LOSS_KIND_EMBEDDING,
                                           v1::LOSS_KIND_HIDDEN};
  Batch batch = ThreeRecords();
  EXPECT_THAT(CountLossRows(JobOf(v1::TASK_CLASSIFICATION, kinds), batch), ElementsAre(3, 3, 3, 5));
  batch.judges_tokens = true;
  batch.gold = {0, -1, -1, 1, 1};
  EXPECT_THAT(CountLossRows(JobOf(v1::TASK_TOKEN_CLASSIFICATION, kinds), batch), ElementsAre(3, 5, 3, 5));
  batch.positions = {{1}, {}, {0}};
  batch.gold = {-1, 0};
  EXPECT_THAT(CountLossRows(JobOf(v1::TASK_MASKED_LM, kinds), batch), ElementsAre(1, 2, 3, 5));
}

TEST(LossRowsTest, RanksAskEachOtherOnlyAboutTokens) {
  EXPECT_TRUE(AreKnown(JobOf(v1::TASK_CLASSIFICATION, {v1::LOSS_KIND_TASK, v1::LOSS_KIND_EMBEDDING})));
  EXPECT_FALSE(AreKnown(JobOf(v1::TASK_CLASSIFICATION, {v1::LOSS_KIND_TASK, v1::LOSS_KIND_HIDDEN})));
  EXPECT_FALSE(AreKnown(JobOf(v1::TASK_MASKED_LM, {v1::LOSS_KIND_TASK})));
}

TEST(LossRowsTest, TheStepsRecordsAreKnownAndItsTokensCounted) {
  const auto of_step = [&](v1::Task task, const std::vector<v1::LossKind>& kinds, const LossRows& slice) {
    return LossRowsOfStep(JobOf(task, kinds), slice);
  };
  EXPECT_THAT(of_step(v1::TASK_CLASSIFICATION, {v1::LOSS_KIND_TASK}, {3}), ElementsAre(64));
  EXPECT_THAT(of_step(v1::TASK_CLASSIFICATION, {v1::LOSS_KIND_SOFT_LABEL, v1::LOSS_KIND_HIDDEN}, {3, 50}),
              ElementsAre(64, 50));
  EXPECT_THAT(of_step(v1::TASK_TOKEN_CLASSIFICATION, {v1::LOSS_KIND_TASK, v1::LOSS_KIND_EMBEDDING}, {7, 3}),
              ElementsAre(7, 64));
  EXPECT_THAT(of_step(v1::TASK_MASKED_LM, {v1::LOSS_KIND_TASK}, {0}), ElementsAre(1));  // nothing to learn, no NaN
}

}  // namespace
}  // namespace polystill::student_worker
