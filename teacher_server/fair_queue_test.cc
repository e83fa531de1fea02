#include "teacher_server/fair_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace polystill::teacher_server {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

constexpr QueueLimits kRoomy = {
    .max_records = 1 << 30, .max_tokens = int64_t{1} << 40, .max_bytes = int64_t{1} << 40, .max_tenants = 1'000};

LabelTask Task(uint64_t id, const std::string& tenant, int64_t tokens, v1::Priority priority = v1::PRIORITY_TRAINING,
               int records = 1) {
  LabelTask task;
  task.request.set_request_id(id);
  task.request.set_priority(priority);
  for (int i = 0; i < records; ++i) task.request.add_inputs();
  task.requester.tenant = tenant;
  task.tokens = tokens;
  task.arrival = Time(std::chrono::seconds(id));
  return task;
}

std::vector<uint64_t> Ids(const std::vector<LabelTask>& tasks) {
  std::vector<uint64_t> ids;
  for (const LabelTask& task : tasks) ids.push_back(task.request.request_id());
  return ids;
}

std::vector<uint64_t> PopAll(FairQueue* queue) {
  std::vector<uint64_t> ids;
  while (!queue->empty()) ids.push_back(queue->Pop().request.request_id());
  return ids;
}

// Tasks in words: "TENANT TOKENS PRIORITY", t for training and d for on demand; ids count from 1.
void PushAll(const std::vector<std::string>& tasks, FairQueue* queue) {
  uint64_t id = 0;
  std::vector<LabelTask> shed;
  for (const std::string& words : tasks) {
    const std::vector<std::string> parts = absl::StrSplit(words, ' ');
    int64_t tokens = 0;
    ASSERT_TRUE(parts.size() == 3 && absl::SimpleAtoi(parts[1], &tokens)) << words;
    const v1::Priority priority = parts[2] == "t" ? v1::PRIORITY_TRAINING : v1::PRIORITY_ON_DEMAND;
    ASSERT_TRUE(queue->Push(Task(++id, parts[0], tokens, priority), &shed).ok()) << words;
  }
  ASSERT_THAT(shed, IsEmpty());
}

TEST(FairQueueTest, OrderTable) {
  struct Case {
    std::string name;
    std::vector<std::string> tasks;
    std::vector<uint64_t> expected;
  };
  static_assert(FairQueue::kQuantum == 1'024);
  const Case cases[] = {
      {"nothing", {}, {}},
      {"one tenant: first come, first served", {"a 900 t", "a 5000 t", "a 1 t"}, {1, 2, 3}},
      {"tenants take turns", {"a 1024 t", "a 1024 t", "a 1024 t", "b 1024 t", "b 1024 t"}, {1, 4, 2, 5, 3}},
      {"a turn is tokens, not requests", {"a 1024 t", "a 1024 t", "b 512 t", "b 512 t", "b 512 t"}, {1, 3, 4, 2, 5}},
      {"what is left of a turn is kept", {"a 600 t", "a 600 t", "a 600 t", "b 1024 t", "b 1024 t"}, {1, 4, 2, 3, 5}},
      {"a large request waits for its turns", {"a 3072 t", "b 1024 t", "b 1024 t", "b 1024 t"}, {2, 3, 1, 4}},
      {"however many they are", {"a 1024000000 t", "b 512000000 t", "b 512000000 t"}, {2, 1, 3}},
      {"an empty request costs nothing", {"a 0 t", "b 1024 t", "a 0 t"}, {1, 3, 2}},
      {"nine turns of training, one of what is on demand",
       {"a 1024 d", "a 1024 d", "b 3072 t", "b 3072 t", "b 3072 t", "b 3072 t"},
       {1, 3, 4, 5, 2, 6}},
      {"priorities do not depend on the tenant", {"a 9216 t", "a 9216 t", "a 1024 d", "b 1024 d"}, {1, 3, 2, 4}},
  };
  for (const Case& c : cases) {
    FairQueue queue(kRoomy);
    PushAll(c.tasks, &queue);
    EXPECT_EQ(PopAll(&queue), c.expected) << c.name;
    EXPECT_EQ(queue.load().tokens, 0) << c.name;
  }
}

TEST(FairQueueTest, WhoHasNothingWaitingLosesWhatIsLeftOfATurn) {
  FairQueue queue(kRoomy);
  PushAll({"a 24 t", "b 1024 t", "b 1024 t"}, &queue);
  EXPECT_EQ(queue.Pop().request.request_id(), 1u);
  std::vector<LabelTask> shed;
  ASSERT_TRUE(queue.Push(Task(4, "a", 2'000), &shed).ok());  // two turns, or one with the 1,000 tokens that were left
  EXPECT_THAT(PopAll(&queue), ElementsAre(2, 3, 4));
}

TEST(FairQueueTest, ALateComerIsNotBehindTheBacklog) {
  FairQueue queue(kRoomy);
  std::vector<LabelTask> shed;
  for (uint64_t id = 0; id < 1'000; ++id) ASSERT_TRUE(queue.Push(Task(id, "flood", 512), &shed).ok());
  for (int i = 0; i < 5; ++i) queue.Pop();
  ASSERT_TRUE(queue.Push(Task(5'000, "small", 512), &shed).ok());
  std::vector<uint64_t> next;
  for (int i = 0; i < 2; ++i) next.push_back(queue.Pop().request.request_id());
  EXPECT_THAT(next, ElementsAre(5, 5'000));  // when the turn that was under way is over
}

TEST(FairQueueTest, FrontIsWhatPopGives) {
  std::mt19937 random(3);
  FairQueue queue(kRoomy);
  std::vector<LabelTask> shed;
  for (uint64_t id = 0; id < 2'000; ++id) {
    const auto priority = random() % 2 == 0 ? v1::PRIORITY_TRAINING : v1::PRIORITY_UNSPECIFIED;
    ASSERT_TRUE(queue.Push(Task(id, std::string(1, 'a' + random() % 7), random() % 3'000, priority), &shed).ok());
    if (random() % 3 != 0) continue;
    std::vector<uint64_t> front, popped;
    for (const LabelTask* task : queue.Front(random() % 20)) front.push_back(task->request.request_id());
    for (size_t i = 0; i < front.size(); ++i) popped.push_back(queue.Pop().request.request_id());
    EXPECT_EQ(front, popped);
  }
  EXPECT_EQ(queue.Front(5'000).size(), PopAll(&queue).size());
}

// What each tenant has been given, of tokens, since all began to wait.
class Shares {
 public:
  explicit Shares(int tenants) : tokens_(static_cast<size_t>(tenants)) {}
  void Give(const LabelTask& task) {
    const auto tenant = static_cast<size_t>(task.requester.tenant[0] - 'a');
    // Then every tenant has had as many turns as any other.
    at_end_of_round_ = tenant == 0 && last_ != 0;
    if (at_end_of_round_) before_ = tokens_;
    last_ = tenant;
    tokens_[tenant] += task.tokens;
  }
  bool at_end_of_round() const { return at_end_of_round_; }
  const std::vector<int64_t>& now() const { return tokens_; }
  const std::vector<int64_t>& at_last_round() const { return before_; }
  // The furthest from the mean.
  static double Deviation(const std::vector<int64_t>& tokens) {
    double mean = 0, deviation = 0;
    for (const int64_t value : tokens) mean += static_cast<double>(value) / static_cast<double>(tokens.size());
    for (const int64_t value : tokens) deviation = std::max(deviation, std::abs(static_cast<double>(value) - mean));
    return deviation;
  }

 private:
  std::vector<int64_t> tokens_, before_;
  size_t last_ = 0;
  bool at_end_of_round_ = false;
};

TEST(FairQueueTest, BackloggedTenantsGetEqualShares) {
  for (const int64_t largest : {FairQueue::kQuantum, 20 * FairQueue::kQuantum}) {
    std::mt19937 random(static_cast<uint32_t>(largest));
    constexpr int kTenants = 5;
    FairQueue queue(kRoomy);
    std::vector<LabelTask> shed;
    // Sizes differ by tenant: the last one's are the largest.
    const auto push = [&](int tenant, uint64_t id) {
      const auto most = static_cast<uint64_t>(largest) * static_cast<uint64_t>(tenant + 1) / kTenants;
      const auto tokens = static_cast<int64_t>(1 + random() % most);
      ASSERT_TRUE(queue.Push(Task(id, std::string(1, static_cast<char>('a' + tenant)), tokens), &shed).ok());
    };
    uint64_t id = 0;
    for (int tenant = 0; tenant < kTenants; ++tenant) {
      for (int i = 0; i < 3; ++i) push(tenant, ++id);
    }
    Shares shares(kTenants);
    int rounds = 0;
    for (int step = 0; step < 20'000; ++step) {
      const LabelTask task = queue.Pop();
      push(task.requester.tenant[0] - 'a', ++id);  // so that all wait all the time
      shares.Give(task);
      const auto [least, most] = std::minmax_element(shares.now().begin(), shares.now().end());
      ASSERT_LT(*most - *least, FairQueue::kQuantum + largest);
      if (largest > FairQueue::kQuantum || !shares.at_end_of_round()) continue;
      ++rounds;
      ASSERT_LT(Shares::Deviation(shares.at_last_round()), FairQueue::kQuantum);
    }
    EXPECT_TRUE(largest > FairQueue::kQuantum || rounds > 500);
  }
}

TEST(FairQueueTest, EachPriorityKeepsItsShare) {
  std::mt19937 random(5);
  FairQueue queue(kRoomy);
  std::vector<LabelTask> shed;
  const auto push = [&](uint64_t id, v1::Priority priority) {
    const std::string tenant(1, static_cast<char>('a' + random() % (priority == v1::PRIORITY_TRAINING ? 9 : 2)));
    const auto tokens = static_cast<int64_t>(1 + random() % 1'500);
    ASSERT_TRUE(queue.Push(Task(id, tenant, tokens, priority), &shed).ok());
  };
  for (uint64_t id = 0; id < 40; ++id) push(id, id % 2 == 0 ? v1::PRIORITY_TRAINING : v1::PRIORITY_ON_DEMAND);
  int64_t training = 0, on_demand = 0;
  for (uint64_t id = 40; id < 20'000; ++id) {
    const LabelTask task = queue.Pop();
    push(id, task.request.priority());
    (task.request.priority() == v1::PRIORITY_TRAINING ? training : on_demand) += task.tokens;
    const auto [nine, one] = FairQueue::kWeights;
    ASSERT_LT(std::abs(training - nine * on_demand), 9 * FairQueue::kQuantum + 9 * 1'500);
  }
  EXPECT_GT(on_demand, 500'000);
}

TEST(FairQueueTest, RandomArrivalsAllGoInTheirTenantsOrder) {
  std::mt19937 random(7);
  FairQueue queue(kRoomy);
  std::vector<LabelTask> shed;
  std::map<std::pair<std::string, int>, uint64_t> last;
  std::set<uint64_t> given;
  const auto take = [&] {
    const LabelTask task = queue.Pop();
    const uint64_t id = task.request.request_id();
    uint64_t& before = last[{task.requester.tenant, task.request.priority()}];
    EXPECT_LT(before, id);
    before = id;
    EXPECT_TRUE(given.insert(id).second);
  };
  constexpr uint64_t kTasks = 10'000;
  for (uint64_t id = 1; id <= kTasks; ++id) {
    const auto priority = random() % 4 == 0 ? v1::PRIORITY_ON_DEMAND : v1::PRIORITY_TRAINING;
    const std::string tenant = random() % 3 == 0 ? "flood" : std::string(1, static_cast<char>('a' + random() % 20));
    ASSERT_TRUE(queue.Push(Task(id, tenant, static_cast<int64_t>(random() % 5'000), priority), &shed).ok());
    while (!queue.empty() && random() % 2 == 0) take();
    if (id % 500 == 0) {
      for (const LabelTask& task : queue.RemoveIf([&](const LabelTask&) { return random() % 10 == 0; })) {
        EXPECT_TRUE(given.insert(task.request.request_id()).second);
      }
    }
  }
  while (!queue.empty()) take();
  EXPECT_EQ(given.size(), kTasks);
  EXPECT_EQ(queue.load().records, 0);
}

TEST(FairQueueTest, NobodyStarves) {
  FairQueue queue(kRoomy);
  std::vector<LabelTask> shed;
  constexpr uint64_t kSmall = 1'000'000;
  uint64_t id = 0;
  for (int tenant = 0; tenant < 50; ++tenant) {
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(queue.Push(Task(++id, "flood" + std::to_string(tenant), 256), &shed).ok());
    }
  }
  ASSERT_TRUE(queue.Push(Task(kSmall, "small", 4'096, v1::PRIORITY_ON_DEMAND), &shed).ok());
  int64_t before = 0;
  for (LabelTask task = queue.Pop(); task.request.request_id() != kSmall; task = queue.Pop()) {
    before += task.tokens;
    ASSERT_TRUE(queue.Push(Task(++id, task.requester.tenant, 256), &shed).ok());  // the floods never end
  }
  EXPECT_LE(before, 4 * 9 * FairQueue::kQuantum);  // its four turns at a tenth of the tokens
}

TEST(FairQueueTest, RemovesWhatItIsToldTo) {
  FairQueue queue(kRoomy);
  PushAll({"a 1024 t", "b 1024 t", "a 1024 t", "b 1024 d", "c 1024 t", "a 1024 t"}, &queue);
  queue.Pop();
  const auto removed = queue.RemoveIf([](const LabelTask& task) { return task.request.request_id() % 2 == 0; });
  EXPECT_THAT(Ids(removed), UnorderedElementsAre(2, 4, 6));
  EXPECT_EQ(queue.load(FairQueue::kTraining).tokens, 2 * 1'024);
  EXPECT_EQ(queue.load(FairQueue::kOnDemand).records, 0);
  EXPECT_THAT(PopAll(&queue), ElementsAre(5, 3));
}

TEST(FairQueueTest, RoomTable) {
  struct Case {
    std::string name;
    std::vector<LabelTask> waiting;
    LabelTask task;
    std::vector<uint64_t> shed;
    std::string refusal;  // empty: it gets in
  };
  constexpr auto kDemand = v1::PRIORITY_ON_DEMAND;
  constexpr auto kTrain = v1::PRIORITY_TRAINING;
  // Room for 8 records of 100 tokens, and three tenants.
  constexpr QueueLimits kLimits = {.max_records = 8, .max_tokens = 100, .max_bytes = 10'000, .max_tenants = 3};
  const Case cases[] = {
      {"an empty queue takes what is too large", {}, Task(9, "a", 1'000), {}, ""},
      {"one tenant may fill it", {Task(1, "a", 90)}, Task(9, "a", 10), {}, ""},
      {"but no more", {Task(1, "a", 90)}, Task(9, "a", 11), {}, "1 records of 90 tokens wait, 1 of them this tenant's"},
      {"whatever is full", {Task(1, "a", 1, kTrain, 7)}, Task(9, "a", 1, kTrain, 2), {}, "7 records of 1 tokens"},
      {"another gets his half back, the youngest first",
       {Task(1, "a", 30), Task(2, "a", 30), Task(3, "a", 30)},
       Task(9, "b", 50),
       {3, 2},
       ""},
      {"of either priority",
       {Task(1, "a", 30, kDemand), Task(2, "a", 30), Task(3, "a", 30, kDemand)},
       Task(9, "b", 50),
       {3, 2},
       ""},
      {"but not more than that", {Task(1, "a", 30), Task(2, "a", 60)}, Task(9, "b", 51), {}, "0 of them this tenant's"},
      {"who has most records", {Task(1, "a", 1, kTrain, 6), Task(2, "b", 60)}, Task(9, "c", 33, kTrain, 2), {1}, ""},
      {"who has most tokens", {Task(1, "a", 1, kTrain, 5), Task(2, "b", 70)}, Task(9, "c", 33, kTrain, 2), {2}, ""},
      {"one tenant too many",
       {Task(1, "a", 1), Task(2, "b", 1), Task(3, "c", 1)},
       Task(9, "d", 1),
       {},
       "3 tenants wait"},
      {"a known one is none", {Task(1, "a", 1), Task(2, "b", 1), Task(3, "c", 1)}, Task(9, "b", 1), {}, ""},
  };
  for (const Case& c : cases) {
    FairQueue queue(kLimits);
    std::vector<LabelTask> shed;
    for (const LabelTask& task : c.waiting) ASSERT_TRUE(queue.Push(task, &shed).ok()) << c.name;
    ASSERT_THAT(shed, IsEmpty()) << c.name;
    const absl::Status status = queue.Push(c.task, &shed);
    EXPECT_EQ(status.ok(), c.refusal.empty()) << c.name << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.refusal)) << c.name;
    EXPECT_TRUE(status.ok() || absl::IsResourceExhausted(status)) << c.name;
    EXPECT_EQ(Ids(shed), c.shed) << c.name;
    EXPECT_EQ(PopAll(&queue).size(), c.waiting.size() + (status.ok() ? 1 : 0) - c.shed.size()) << c.name;
  }
}

TEST(FairQueueTest, AFloodDoesNotFillTheQueue) {
  std::mt19937 random(11);
  FairQueue queue({.max_records = 1'000, .max_tokens = 1 << 20, .max_bytes = 1 << 20, .max_tenants = 100});
  for (uint64_t id = 1; id <= 20'000; ++id) {
    std::vector<LabelTask> shed;
    const bool flood = random() % 10 != 0;
    const std::string tenant = flood ? "flood" : std::string(1, static_cast<char>('a' + random() % 4));
    const absl::Status status = queue.Push(Task(id, tenant, 100, v1::PRIORITY_TRAINING, 1 + random() % 20), &shed);
    EXPECT_TRUE(flood || status.ok()) << status;  // the others stay far below their fifth
    for (const LabelTask& task : shed) EXPECT_EQ(task.requester.tenant, "flood");
    EXPECT_LE(queue.load().records, 1'000);
    while (queue.load(FairQueue::kTraining).records > 950 && random() % 3 == 0) queue.Pop();
  }
}

}  // namespace
}  // namespace polystill::teacher_server
