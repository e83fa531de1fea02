#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/array.h"
#include "soft_labels/backoff.h"

namespace polystill::soft_labels {

// Longest text of an input in bytes; servers refuse a longer one, whose tokens would be cut anyway.
inline constexpr int64_t kMaxTextBytes = 1 << 20;

// Asks the replicas of one teacher for labels: one stream to each, the replica with the fewest records in flight is
// asked next, credits are kept, a request that failed with UNAVAILABLE or RESOURCE_EXHAUSTED (or whose stream broke) is
// sent again, to another replica where there is one, with growing pauses, until `Options::give_up_after` has passed.
//
//   caller's threads --Label()--> inbox --> client_loop (one thread) --router: whom, when--> replica_stream 1..n
//                                   ^            |                                                 |
//                                   |            +--> callback(labels)                             |
//                                   +---------------------- events --------------------------------+
//
// Thread-safe. Callbacks come from the client's own thread, exactly once each, and must not block; they may call Label,
// but must not destroy the client.
class LabelClient {
 public:
  struct Options {
    // Who asks, for the server's logs.
    std::string client = "student";
    // For whom (runtime/tenant.h): teacher servers share their time fairly among tenants. Empty: nobody's.
    std::string tenant = {};
    // Of its requests, at the server.
    v1::Priority priority = v1::PRIORITY_TRAINING;
    // Expected digest of the teacher; replies of another are errors. Empty: the first replica's digest.
    std::string teacher_digest = {};
    // Time without any answering replica after which requests fail with UNAVAILABLE. Milliseconds.
    int64_t give_up_after_ms = 60'000;
    // Time after which a replica that has not answered a request is told to drop it, and another is asked.
    // Milliseconds.
    int64_t request_timeout_ms = 30'000;
    // Pauses of a replica that fails or is full.
    BackoffOptions backoff = {};
    // Records that may wait for room at a replica, beyond those in flight; more fail with RESOURCE_EXHAUSTED.
    int64_t max_waiting_records = 1 << 20;
    // Answers also as they came: Labels::encoded.
    bool keeps_encoded = false;
  };
  // One decoded output.
  using Array = soft_labels::Array;
  // A decoded answer.
  struct Labels {
    // One for each of the spec's outputs, in their order.
    std::vector<Array> outputs;
    // Payload bytes that crossed the wire.
    int64_t bytes = 0;
    // With keeps_encoded, for each input and each output of the spec: what would be the answer about it alone.
    std::vector<std::vector<v1::SoftLabels>> encoded = {};
  };
  using Callback = std::function<void(absl::StatusOr<Labels>)>;

  // Connects to every address and waits for the first to describe itself (at most give_up_after_ms, then UNAVAILABLE).
  // A replica whose digest or signature differs is logged by address and never asked; FAILED_PRECONDITION when none is
  // left.
  static absl::StatusOr<std::unique_ptr<LabelClient>> Connect(const std::vector<std::string>& addresses,
                                                              Options options);
  // Cancels what is in flight; every callback has been called when it returns.
  ~LabelClient();

  const v1::DescribeReply& description() const;

  // Asks for labels of `inputs` (split into requests whose records the server takes and whose answers fit a message;
  // all answers are finite and of the right shape, or the status says which record is to blame). `spec`: outputs
  // default to "logits", codec to dense_fp32. The callback's status is the server's; or INVALID_ARGUMENT for an output
  // that the teacher does not have or a codec that cannot hold it, DATA_LOSS for an answer that fails the checks,
  // FAILED_PRECONDITION for another teacher's, UNAVAILABLE when nobody answers, RESOURCE_EXHAUSTED beyond
  // max_waiting_records, CANCELLED when the client is destroyed.
  void Label(v1::LabelSpec spec, std::vector<v1::LabelInput> inputs, Callback callback);

 private:
  struct State;
  explicit LabelClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::soft_labels
