#include "teacher_server/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>

namespace polystill::teacher_server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using Batch = std::vector<uint64_t>;  // request ids

// A model that is stepped by hand.
class Puppet {
 public:
  Batcher::Answers Process(const std::vector<const v1::LabelRequest*>& requests) {
    MutexLock lock(&mutex_);
    batches_.emplace_back();
    for (const auto* request : requests) batches_.back().push_back(request->request_id());
    changed_.NotifyAll();
    while (steps_ == 0) changed_.Wait(&mutex_);
    --steps_;
    return Batcher::Answers(requests.size(), Answer());
  }
  Batcher::Label process() {
    return [this](const auto& requests) { return Process(requests); };
  }
  // Lets `count` batches finish, now or later.
  void Step(int count) {
    MutexLock lock(&mutex_);
    steps_ += count;
    changed_.NotifyAll();
  }
  void WaitUntilItHas(size_t batches) {
    MutexLock lock(&mutex_);
    while (batches_.size() < batches) changed_.Wait(&mutex_);
  }
  std::vector<Batch> batches() {
    MutexLock lock(&mutex_);
    return batches_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::vector<Batch> batches_ ABSL_GUARDED_BY(mutex_);
  int steps_ ABSL_GUARDED_BY(mutex_) = 0;
};

class BatcherTest : public testing::Test {
 protected:
  // Batches of exactly 4 records, so that nothing waits for the clock.
  static constexpr BatchLimits kBatch = {
      .max_tokens = 1'000, .max_rows = 100, .row_multiple = 4, .max_delay = std::chrono::hours(1)};

  std::future<absl::Status> Submit(Batcher& batcher, uint64_t id, int records, int64_t tokens = 1,
                                   std::shared_ptr<std::atomic<bool>> cancelled = nullptr,
                                   Time deadline = Time::max()) {
    LabelTask task;
    task.request.set_request_id(id);
    for (int i = 0; i < records; ++i) task.request.add_inputs()->set_text("12345678");
    task.tokens = tokens;
    task.answer_bytes = answer_bytes_;
    task.cancelled = std::move(cancelled);
    task.deadline = deadline;
    auto promise = std::make_shared<std::promise<absl::Status>>();
    task.done = [promise](absl::StatusOr<Answer> labels) { promise->set_value(labels.status()); };
    refused_ = batcher.Submit(std::move(task));
    return promise->get_future();
  }

  Puppet puppet_;
  absl::Status refused_;
  int64_t answer_bytes_ = 0;
};

TEST_F(BatcherTest, LabelsAsManyBatchesAtOnceAsItHasThreads) {
  Batcher batcher(kBatch, {}, 3, puppet_.process());
  std::vector<std::future<absl::Status>> answers;
  for (uint64_t id = 0; id < 3; ++id) {
    answers.push_back(Submit(batcher, id, 4));
    puppet_.WaitUntilItHas(id + 1);  // none is finished yet
  }
  for (uint64_t id = 3; id < 5; ++id) answers.push_back(Submit(batcher, id, 4));
  puppet_.Step(4);
  for (auto& answer : answers) EXPECT_TRUE(answer.get().ok());
  EXPECT_THAT(puppet_.batches(), ElementsAre(ElementsAre(0), ElementsAre(1), ElementsAre(2), ElementsAre(3, 4)));
}

TEST_F(BatcherTest, WakesAnotherThreadForWhatABatchLeaves) {
  Batcher batcher({.max_tokens = 1'000, .max_rows = 8, .row_multiple = 8, .max_delay = std::chrono::hours(1)}, {}, 2,
                  puppet_.process());
  auto small = Submit(batcher, 0, 4);  // one thread waits for company, the other for anything
  auto large = Submit(batcher, 1, 8);
  puppet_.WaitUntilItHas(2);
  puppet_.Step(2);
  EXPECT_TRUE(small.get().ok() && large.get().ok());
}

TEST_F(BatcherTest, AnswersUnderWayStayWithinTheirBytes) {
  BatchLimits limits = kBatch;
  limits.max_bytes = 100;
  Batcher batcher(limits, {}, 3, puppet_.process());
  std::vector<std::future<absl::Status>> answers;
  for (uint64_t id = 0; id < 3; ++id) {
    answer_bytes_ = 60;
    answers.push_back(Submit(batcher, id, 4));
    if (id == 0) puppet_.WaitUntilItHas(1);
  }
  for (size_t batches = 1; batches <= 3; ++batches) {
    puppet_.WaitUntilItHas(batches);
    EXPECT_EQ(puppet_.batches().size(), batches);  // the next would be too much
    puppet_.Step(1);
    EXPECT_TRUE(answers[batches - 1].get().ok());
  }
}

TEST_F(BatcherTest, GathersInOrderWhileTheModelIsBusy) {
  Batcher batcher(kBatch, {}, 1, puppet_.process());
  auto first = Submit(batcher, 1, 4);
  puppet_.WaitUntilItHas(1);
  auto second = Submit(batcher, 2, 1);
  auto third = Submit(batcher, 3, 3);
  auto fourth = Submit(batcher, 4, 8);
  auto fifth = Submit(batcher, 5, 2);
  puppet_.Step(2);
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(fourth.get().ok());
  EXPECT_THAT(puppet_.batches(), ElementsAre(Batch{1}, Batch{2, 3, 4}));
  EXPECT_TRUE(second.get().ok());
  EXPECT_TRUE(third.get().ok());
}

TEST_F(BatcherTest, ARequestWithoutCompanyGoesAfterTheDelay) {
  BatchLimits limits = kBatch;
  limits.max_delay = std::chrono::milliseconds(1);
  Batcher batcher(limits, {}, 1, puppet_.process());
  puppet_.Step(1);
  EXPECT_TRUE(Submit(batcher, 1, 1).get().ok());
}

TEST_F(BatcherTest, AFullQueueRefusesBeforeAnyWork) {
  struct Case {
    QueueLimits limits;
    int records;
    int64_t tokens;
  };
  const Case cases[] = {
      {{.max_records = 5, .max_tokens = 1'000, .max_bytes = 1'000'000}, 3, 1},
      {{.max_records = 1'000, .max_tokens = 50, .max_bytes = 1'000'000}, 3, 30},
      {{.max_records = 1'000, .max_tokens = 1'000, .max_bytes = 60}, 3, 1},
  };
  for (const Case& c : cases) {
    Puppet puppet;
    Batcher batcher(kBatch, c.limits, 1, puppet.process());
    auto busy = Submit(batcher, 1, 4);
    puppet.WaitUntilItHas(1);
    auto waits = Submit(batcher, 2, c.records, c.tokens);
    EXPECT_TRUE(refused_.ok());
    Submit(batcher, 3, c.records, c.tokens);
    EXPECT_TRUE(absl::IsResourceExhausted(refused_)) << refused_;
    EXPECT_THAT(std::string(refused_.message()), HasSubstr("3 records of"));
    puppet.Step(1);
    EXPECT_TRUE(busy.get().ok());
    EXPECT_THAT(puppet.batches(), ElementsAre(Batch{1}));
    puppet.Step(1);
  }
}

TEST_F(BatcherTest, RoomComesBack) {
  Batcher batcher(kBatch, {.max_records = 4, .max_tokens = 1'000, .max_bytes = 1'000}, 1, puppet_.process());
  puppet_.Step(100);
  for (int i = 0; i < 100; ++i) {
    auto done = Submit(batcher, i, 4);
    ASSERT_TRUE(refused_.ok());
    EXPECT_TRUE(done.get().ok());
  }
}

TEST_F(BatcherTest, CancelledWorkIsDroppedBeforeTheModelSeesIt) {
  Batcher batcher(kBatch, {}, 1, puppet_.process());
  auto busy = Submit(batcher, 1, 4);
  puppet_.WaitUntilItHas(1);
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  auto second = Submit(batcher, 2, 4, 1, cancelled);
  auto third = Submit(batcher, 3, 4);
  *cancelled = true;
  puppet_.Step(2);
  EXPECT_TRUE(absl::IsCancelled(second.get()));
  EXPECT_TRUE(third.get().ok());
  EXPECT_THAT(puppet_.batches(), ElementsAre(Batch{1}, Batch{3}));
}

TEST_F(BatcherTest, ExpiredWorkIsDroppedBeforeTheModelSeesIt) {
  std::atomic<int64_t> now_ms = 1'000;
  const auto now = [&] { return Time(std::chrono::milliseconds(now_ms)); };
  Batcher batcher(kBatch, {}, 1, puppet_.process(), now);
  auto busy = Submit(batcher, 1, 4);
  puppet_.WaitUntilItHas(1);
  auto late = Submit(batcher, 2, 4, 1, nullptr, Time(std::chrono::milliseconds(1'500)));
  auto in_time = Submit(batcher, 3, 4, 1, nullptr, Time(std::chrono::milliseconds(1'501)));
  now_ms = 1'500;
  puppet_.Step(2);
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.get()));
  EXPECT_TRUE(in_time.get().ok());
  EXPECT_THAT(puppet_.batches(), ElementsAre(Batch{1}, Batch{3}));
}

TEST_F(BatcherTest, DestructionFinishesTheBatchAndAnswersTheRest) {
  std::future<absl::Status> busy, waiting;
  {
    Batcher batcher(kBatch, {}, 1, puppet_.process());
    busy = Submit(batcher, 1, 4);
    puppet_.WaitUntilItHas(1);
    waiting = Submit(batcher, 2, 1);
    puppet_.Step(1);
  }
  EXPECT_TRUE(busy.get().ok());
  EXPECT_TRUE(absl::IsUnavailable(waiting.get()));
  EXPECT_THAT(puppet_.batches(), ElementsAre(Batch{1}));
}

}  // namespace
}  // namespace polystill::teacher_server
