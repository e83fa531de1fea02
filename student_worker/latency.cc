#include "student_worker/latency.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "student_worker/inputs.h"

namespace polystill::student_worker {
namespace {

constexpr int kWarmUpCalls = 5;
constexpr size_t kFewestCalls = 20;
constexpr size_t kMostCalls = 200;
constexpr double kBudgetSeconds = 3;
constexpr size_t kBatchSizes[] = {1, 32};

using Rows = std::vector<std::vector<int32_t>>;

// `size` items from `*next` on, round and round.
template <typename Item>
std::vector<Item> Take(const std::vector<Item>& items, size_t size, size_t* next) {
  std::vector<Item> some;
  for (size_t i = 0; i < size; ++i) some.push_back(items[(*next)++ % items.size()]);
  return some;
}

// As whoever uses the model calls it.
models::TokenBatch BatchOf(const Rows& rows, v1::Task task) {
  models::TokenBatch batch = models::MakeBatch(rows);
  if (task != v1::TASK_MASKED_LM) return batch;
  std::vector<int64_t> places;
  int64_t begin = 0;
  for (const std::vector<int32_t>& row : rows) {
    const auto length = static_cast<int64_t>(row.size());
    if (length > 0) places.push_back(begin + length / 2);
    begin += length;
  }
  batch.positions = at::tensor(places, at::kLong);
  return batch;
}

}  // namespace

absl::StatusOr<double> MedianMilliseconds(const std::function<void()>& call, const SecondsClock& clock,
                                          const std::stop_token& stop) {
  for (int i = 0; i < kWarmUpCalls; ++i) call();
  std::vector<double> seconds;
  for (double spent = 0; seconds.size() < kMostCalls; spent += seconds.back()) {
    if (seconds.size() >= kFewestCalls && spent > kBudgetSeconds) break;
    if (stop.stop_requested()) return absl::CancelledError("stopped while measuring latency");
    const double start = clock();
    call();
    seconds.push_back(clock() - start);
  }
  std::sort(seconds.begin(), seconds.end());
  const size_t half = seconds.size() / 2;
  const double median = seconds.size() % 2 == 1 ? seconds[half] : (seconds[half - 1] + seconds[half]) / 2;
  return 1e3 * median;
}

absl::StatusOr<evaluation::Latencies> MeasureLatency(const models::Model& model, v1::Task task,
                                                     const corpus::Tokenizer* tokenizer, v1::Side side,
                                                     const std::vector<corpus::Record>& records,
                                                     const SecondsClock& clock, const std::stop_token& stop) {
  if (records.empty()) return absl::InvalidArgumentError("no record to measure latency on");
  Rows rows;
  for (const corpus::Record& record : records) rows.push_back(TokenIdsOf(record, side, tokenizer));
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);
  const auto forward = [&](const Rows& some) { model.Forward(BatchOf(some, task)); };
  evaluation::Latencies latencies;
  try {
    for (const size_t size : kBatchSizes) {
      evaluation::Latency& latency = latencies[absl::StrCat("batch_", size)];
      size_t next = 0;
      ASSIGN_OR_RETURN(latency.forward_ms, MedianMilliseconds([&] { forward(Take(rows, size, &next)); }, clock, stop));
      if (tokenizer == nullptr) continue;
      next = 0;
      const auto tokenize_too = [&] {
        Rows batch;
        for (size_t i = 0; i < size; ++i) {
          batch.push_back(TokenIdsOf(records[next++ % records.size()], side, tokenizer));
        }
        forward(batch);
      };
      ASSIGN_OR_RETURN(latency.text_ms, MedianMilliseconds(tokenize_too, clock, stop));
    }
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  }
  return latencies;
}

}  // namespace polystill::student_worker
