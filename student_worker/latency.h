#pragma once

#include <functional>
#include <stop_token>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/record.h"
#include "corpus/tokenizer.h"
#include "evaluation/latency.h"
#include "models/model.h"
#include "polystill/v1/run.pb.h"

namespace polystill::student_worker {

// Seconds from any origin; never goes back.
using SecondsClock = std::function<double()>;

// Calls `call` a few times to warm up and then until its median is known well enough: 200 times, or, when that takes
// more than 3 s, at least 20 times. The median in milliseconds; CANCELLED soon after `stop` is requested.
absl::StatusOr<double> MedianMilliseconds(const std::function<void()>& call, const SecondsClock& clock,
                                          const std::stop_token& stop);

// What a model takes for 1 and for 32 texts, call after call on other records: the forward pass alone, and, unless
// `tokenizer` is null, with tokenising. With task masked_lm one token a text is guessed. On one thread: sets the number
// of ATen's threads to 1. Batches have their own shape, without the filling of repeatable mode. INVALID_ARGUMENT
// without records; INTERNAL when the forward fails.
absl::StatusOr<evaluation::Latencies> MeasureLatency(const models::Model& model, v1::Task task,
                                                     const corpus::Tokenizer* tokenizer, v1::Side side,
                                                     const std::vector<corpus::Record>& records,
                                                     const SecondsClock& clock, const std::stop_token& stop);

}  // namespace polystill::student_worker
