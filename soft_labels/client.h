#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/array.h"
#include "soft_labels/backoff.h"
#include "soft_labels/hedging.h"
#include "soft_labels/name_lookup.h"
#include "soft_labels/token_window.h"

namespace polystill::soft_labels {

// Longest text of an input in bytes; servers refuse a longer one, whose tokens would be cut anyway.
inline constexpr int64_t kMaxTextBytes = 1 << 20;

// Asks the replicas of one teacher for labels: one stream to each, the replica with the fewest tokens in flight is
// asked next, credits and windows are kept, a request that failed with UNAVAILABLE or RESOURCE_EXHAUSTED (or whose
// stream broke) is sent again, to another replica where there is one, with growing pauses, until `give_up_after_ms` has
// passed; one that waits longer than most is asked of a second replica (router.h). Where replicas keep what they
// computed, each input has one that it is asked of (rendezvous.h). Of an address by host name, without the name of one
// server, every address behind it is a replica, as long as it is (replica_roster.h).
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
    // Time without any answering replica after which requests, and Connect, fail with UNAVAILABLE. Milliseconds.
    int64_t give_up_after_ms = 60'000;
    // Requests wait for a replica for ever, whatever give_up_after_ms is.
    bool waits_for_replicas = false;
    // Time after which a replica that has not answered a request is told to drop it, and another is asked.
    // Milliseconds.
    int64_t request_timeout_ms = 30'000;
    // The names of the servers at the addresses, in their order, where they are the same after a restart: then a server
    // that comes back elsewhere is asked for what it has kept. Empty, all or one: the address.
    std::vector<std::string> server_ids = {};
    // Pauses of a replica that fails or is full.
    BackoffOptions backoff = {};
    // Largest difference between the replicas' answers to a few fixed inputs (canary.h): who differs more is refused,
    // at first and whenever it reconnects. None: they are not compared.
    std::optional<double> parity_tolerance = std::nullopt;
    // How long those that have answered wait for those that have not, at first. Milliseconds.
    int64_t parity_patience_ms = 5'000;
    // How much a replica is given at once, and when a second one is asked.
    TokenWindow::Options window = {};
    Hedging::Options hedging = {};
    // Records that may wait for room at a replica, beyond those in flight; more fail with RESOURCE_EXHAUSTED.
    int64_t max_waiting_records = 1 << 20;
    // How labels' bytes travel.
    v1::Compression compression = v1::COMPRESSION_NONE;
    // Answers also as they came (but not compressed): Labels::encoded.
    bool keeps_encoded = false;
    // How the addresses behind a host name are found.
    NameLookup look_up = LookUp;
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
  // Since it connected.
  struct Counts {
    // Sent to replicas, hedges included.
    int64_t requests = 0;
    // Requests that were sent to a second replica before the first had answered, and those that it answered first.
    int64_t hedges = 0;
    int64_t hedge_wins = 0;
    // Requests sent again: the stream broke, the replica had no room, or did not answer in time.
    int64_t retries = 0;
    // Replicas that are never asked again.
    int64_t refused_replicas = 0;

    Counts operator+(const Counts& other) const;
    Counts operator-(const Counts& other) const;
  };
  using Callback = std::function<void(absl::StatusOr<Labels>)>;

  // INVALID_ARGUMENT without addresses, or when there are server_ids, but not of each.
  // Connects to every replica and waits for the first to describe itself; with a parity_tolerance until the replicas
  // are compared (at most parity_patience_ms after the first has answered). UNAVAILABLE after give_up_after_ms,
  // INVALID_ARGUMENT without addresses, or where there are server_ids, but not as many.
  // A replica whose digest, signature or answers differ is logged by address and never asked; FAILED_PRECONDITION when
  // none is left.
  static absl::StatusOr<std::unique_ptr<LabelClient>> Connect(const std::vector<std::string>& addresses,
                                                              Options options);
  // Cancels what is in flight; every callback has been called when it returns.
  ~LabelClient();

  // The replicas are these from now on, with the names of their servers as Options::server_ids has them, or none.
  // Those that have left are asked no more; what they were asked goes to others, or waits for some to come.
  void SetReplicas(std::vector<std::string> addresses, std::vector<std::string> server_ids);

  const v1::DescribeReply& description() const;
  Counts counts() const;
  // Whether some replica may be asked at present.
  bool HasReplica() const;
  // How many replicas there are, whether or not they answer.
  int64_t replica_count() const;

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
