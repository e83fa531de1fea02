#include "student_worker/latency.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace polystill::student_worker {
namespace {

// A clock that a call moves on; calls are counted.
struct Fake {
  double now = 0;
  int calls = 0;
  SecondsClock Clock() {
    return [this] { return now; };
  }
};

TEST(MedianMilliseconds, LeavesTheWarmUpOut) {
  Fake fake;
  const auto call = [&fake] { fake.now += fake.calls++ < 5 ? 100.0 : (fake.calls % 2 == 0 ? 0.001 : 0.003); };
  const auto median = MedianMilliseconds(call, fake.Clock(), {});
  ASSERT_TRUE(median.ok());
  EXPECT_NEAR(*median, 2.0, 1e-6);  // as many calls of 1 ms as of 3 ms
  EXPECT_EQ(fake.calls, 5 + 200);
}

TEST(MedianMilliseconds, SlowCallsAreFewer) {
  for (const auto& [seconds, calls] : {std::pair{1.0, 20}, {0.0625, 49}}) {
    Fake fake;
    const auto call = [&fake, seconds = seconds] {
      ++fake.calls;
      fake.now += seconds;
    };
    const auto median = MedianMilliseconds(call, fake.Clock(), {});
    ASSERT_TRUE(median.ok());
    EXPECT_NEAR(*median, 1e3 * seconds, 1e-6);
    EXPECT_EQ(fake.calls, 5 + calls) << seconds;
  }
}

TEST(MedianMilliseconds, StopsWhenAsked) {
  Fake fake;
  std::stop_source stop;
  const auto call = [&] {
    if (++fake.calls == 8) stop.request_stop();
  };
  EXPECT_EQ(MedianMilliseconds(call, fake.Clock(), stop.get_token()).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(fake.calls, 8);
}

// Rows and tokens of each forward pass.
class CountingModel : public models::Model {
 public:
  models::Outputs Forward(const models::TokenBatch& batch) const override {
    rows.push_back(batch.offsets.size(0) - 1);
    tokens.push_back(batch.ids.size(0));
    places.emplace_back();
    if (batch.positions.defined()) {
      const int64_t* begin = batch.positions.const_data_ptr<int64_t>();
      places.back().assign(begin, begin + batch.positions.numel());
    }
    TORCH_CHECK(!fails, "no such id");
    return {at::zeros({rows.back(), 2}), {}};
  }
  checkpoint::NamedTensors NamedParameters() const override { return {}; }
  Takes takes() const override { return Takes::kRows; }
  bool judges_tokens() const override { return false; }
  const std::map<std::string, int64_t>& feature_widths() const override { return feature_widths_; }

  bool fails = false;
  mutable std::vector<int64_t> rows, tokens;
  mutable std::vector<std::vector<int64_t>> places;

 private:
  const std::map<std::string, int64_t> feature_widths_;
};

TEST(MeasureLatency, BatchesHaveTheirOwnShape) {
  CountingModel model;
  corpus::Record one, two;
  one.ids = {1, 2, 3};
  two.ids = {4};
  Fake fake;
  const auto latencies =
      MeasureLatency(model, v1::TASK_CLASSIFICATION, nullptr, v1::SIDE_TEXT, {one, two}, fake.Clock(), {});
  ASSERT_TRUE(latencies.ok()) << latencies.status();
  ASSERT_EQ(latencies->size(), 2u);
  EXPECT_EQ(latencies->at("batch_1").text_ms, std::nullopt);
  EXPECT_EQ(std::count(model.rows.begin(), model.rows.end(), 1), 205);
  EXPECT_EQ(std::count(model.rows.begin(), model.rows.end(), 32), 205);
  EXPECT_EQ(model.tokens[0], 3);
  EXPECT_EQ(model.tokens[1], 1);
  EXPECT_EQ(model.tokens.back(), 16 * 3 + 16);
  for (const auto& places : model.places) EXPECT_EQ(places, std::vector<int64_t>());  // all of them
}

TEST(MeasureLatency, OfMaskedTokensOneATextIsGuessed) {
  CountingModel model;
  corpus::Record one, none, three;
  one.ids = {4};
  three.ids = {1, 2, 3};
  Fake fake;
  const auto latencies =
      MeasureLatency(model, v1::TASK_MASKED_LM, nullptr, v1::SIDE_TEXT, {one, none, three}, fake.Clock(), {});
  ASSERT_TRUE(latencies.ok()) << latencies.status();
  EXPECT_EQ(model.places[0], std::vector<int64_t>({0}));
  EXPECT_EQ(model.places[1], std::vector<int64_t>());
  EXPECT_EQ(model.places[2], std::vector<int64_t>({1}));
  EXPECT_EQ(model.places.back().size(), 21u);  // of 32 texts a third is empty
  EXPECT_EQ(model.places.back()[1], 2);
}

TEST(MeasureLatency, FailuresAreStatuses) {
  CountingModel model;
  Fake fake;
  EXPECT_EQ(
      MeasureLatency(model, v1::TASK_CLASSIFICATION, nullptr, v1::SIDE_TEXT, {}, fake.Clock(), {}).status().code(),
      absl::StatusCode::kInvalidArgument);
  model.fails = true;
  corpus::Record record;
  record.ids = {1};
  EXPECT_EQ(MeasureLatency(model, v1::TASK_CLASSIFICATION, nullptr, v1::SIDE_TEXT, {record}, fake.Clock(), {})
                .status()
                .code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace polystill::student_worker
