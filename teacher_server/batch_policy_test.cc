#include "teacher_server/batch_policy.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace polystill::teacher_server {
namespace {

using Reason = BatchDecision::Reason;

constexpr BatchLimits kLimits = {.max_tokens = 1000,
                                 .max_rows = 96,
                                 .max_bytes = 5000,
                                 .row_multiple = 32,
                                 .max_delay = std::chrono::microseconds(2000)};

Time At(int64_t us) { return Time(std::chrono::microseconds(us)); }

TEST(BatchPolicyTest, Table) {
  struct Case {
    std::string name;
    std::vector<QueuedRequest> queue;
    int64_t now_us;
    BatchDecision expected;
  };
  const Case cases[] = {
      {"nothing waits", {}, 0, {Reason::kWait, 0, Time::max()}},
      {"a young request waits for company", {{8, 80, At(100)}}, 1000, {Reason::kWait, 0, At(2100)}},
      {"but not for ever", {{8, 80, At(100)}}, 2100, {Reason::kDelay, 1}},
      {"the wait is the oldest's", {{8, 80, At(100)}, {8, 80, At(2000)}}, 2100, {Reason::kDelay, 2}},
      {"a full forward goes at once", {{32, 320, At(100)}}, 100, {Reason::kRows, 1}},
      {"also when made of parts", {{8, 80, At(100)}, {20, 80, At(100)}, {4, 80, At(100)}}, 100, {Reason::kRows, 3}},
      {"what would fill half a forward stays", {{32, 320, At(100)}, {8, 80, At(100)}}, 100, {Reason::kRows, 1}},
      {"even when it waited", {{32, 320, At(100)}, {8, 80, At(100)}}, 9000, {Reason::kRows, 1}},
      {"the most full forwards",
       {{32, 1, At(0)}, {16, 1, At(0)}, {16, 1, At(0)}, {5, 1, At(0)}},
       0,
       {Reason::kRows, 3}},
      {"no more than max_rows",
       {{32, 1, At(0)}, {32, 1, At(0)}, {32, 1, At(0)}, {32, 1, At(0)}},
       0,
       {Reason::kRows, 3}},
      {"rows full without a whole forward", {{60, 1, At(0)}, {60, 1, At(0)}}, 0, {Reason::kFull, 1}},
      {"tokens full", {{8, 600, At(0)}, {8, 300, At(0)}, {8, 200, At(0)}}, 0, {Reason::kFull, 2}},
      {"bytes full", {{8, 1, At(0), 3000}, {8, 1, At(0), 2000}, {8, 1, At(0), 1}}, 0, {Reason::kFull, 2}},
      {"exactly the budget waits", {{8, 600, At(0)}, {8, 400, At(0)}}, 0, {Reason::kWait, 0, At(2000)}},
      {"one that is larger than the budget goes alone", {{8, 5000, At(0)}, {8, 1, At(0)}}, 0, {Reason::kFull, 1}},
      {"and at its time when it is the only one", {{100, 5000, At(0)}}, 2000, {Reason::kDelay, 1}},
  };
  for (const Case& c : cases) {
    const BatchDecision decision = DecideBatch(kLimits, c.queue, At(c.now_us));
    EXPECT_EQ(decision.reason, c.expected.reason) << c.name;
    EXPECT_EQ(decision.take, c.expected.take) << c.name;
    EXPECT_EQ(decision.until, c.expected.until) << c.name;
  }
}

}  // namespace
}  // namespace polystill::teacher_server
