#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "soft_labels/backoff.h"

namespace polystill::soft_labels {

// Decides which replica is asked for which piece of work, and when again. Knows neither gRPC nor a clock: events come
// in with the time, Step says what to do now. A piece is a handful of records that travel in one request.
//
//   Add --> waiting --Step: send--> in flight --Replied: kDeliver--> gone
//              ^                        |
//              +--- broken stream, kAgain, time-out                 (Forget, give-up: gone from either)
//
// A replica is asked only while it is open and not pausing, within its credits; the one with the fewest records in
// flight first. A replica that fails or refuses for want of room pauses, longer each time until it delivers again; its
// pieces go on to another one meanwhile. Not thread-safe.
class Router {
 public:
  struct Options {
    // Time without any answer by any replica after which a waiting piece fails. Milliseconds.
    int64_t give_up_after_ms = 60'000;
    // Time after which a replica that does not answer a request is asked no longer. Milliseconds.
    int64_t request_timeout_ms = 30'000;
    BackoffOptions backoff = {};
  };
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

  struct Send {
    int replica;
    uint64_t request_id;
    uint64_t piece;
  };
  struct Cancel {
    int replica;
    uint64_t request_id;
  };
  struct Failure {
    uint64_t piece;
    absl::Status status;
  };
  struct Actions {
    std::vector<int> connect;     // replicas to open a stream to
    std::vector<int> disconnect;  // replicas that did not describe themselves in time: end their stream
    std::vector<Cancel> cancel;   // requests that nobody waits for any more
    std::vector<Send> send;
    std::vector<Failure> fail;  // pieces given up
    int64_t next_ms = kNever;   // when Step has something to do again if nothing else happens
  };
  // What a reply means.
  enum class Verdict {
    kDeliver,  // the answer of a piece, good or bad; the piece is gone from here
    kAgain,    // the replica could not; the piece waits again
    kLate,     // nobody waits for it any more
    kUnknown,  // was never asked, or is answered already: the replica breaks the protocol
  };

  // `names`: the replicas' addresses, for messages.
  Router(std::vector<std::string> names, Options options);

  void Add(uint64_t piece, int64_t records, int64_t now_ms);
  // Nobody waits for the piece any more.
  void Forget(uint64_t piece);

  // The replica described itself: how many records it takes in flight, and in one request.
  void Opened(int replica, int64_t credits, int64_t max_records);
  // The replica's stream has ended.
  void Broken(int replica, const absl::Status& why, int64_t now_ms);
  // The replica must never be asked again.
  void Refused(int replica, const absl::Status& why);
  // `retry_after_ms`: the replica's own hint; 0 without one. `piece` is set with kDeliver and kAgain.
  Verdict Replied(int replica, uint64_t request_id, const absl::Status& status, int64_t retry_after_ms, int64_t now_ms,
                  uint64_t* piece);

  Actions Step(int64_t now_ms);

  // FAILED_PRECONDITION with every reason once no replica may be asked; OK before.
  absl::Status AllRefused() const;
  // Every replica's last trouble, for messages.
  std::string Troubles() const;
  int64_t waiting_records() const { return waiting_records_; }

 private:
  enum class State { kDown, kConnecting, kOpen, kRefused };
  struct Replica {
    std::string name;
    State state = State::kDown;
    int64_t since_ms = 0;       // kConnecting: when it began
    int64_t not_before_ms = 0;  // pausing until then
    int failures = 0;           // in a row
    int64_t credits = 0;
    int64_t max_records = 0;
    int64_t records_in_flight = 0;          // abandoned ones included: the replica still holds them
    std::map<uint64_t, int64_t> abandoned;  // request -> records
    std::string trouble;
  };
  struct Piece {
    int64_t records;
    int64_t added_ms;
    uint64_t request_id = 0;  // 0: waiting
  };
  struct Flight {
    uint64_t piece;
    int replica;
    int64_t sent_ms;
  };

  void Pause(int replica, int64_t at_least_ms, const absl::Status& why, int64_t now_ms);
  void WaitAgain(uint64_t piece);
  void Abandon(uint64_t request_id);
  void StepReplicas(int64_t now_ms, Actions& actions);
  void StepTimeouts(int64_t now_ms, Actions& actions);
  void StepGiveUp(int64_t now_ms, Actions& actions);
  void StepSend(int64_t now_ms, Actions& actions);
  int Choose(int64_t records, int64_t now_ms) const;

  const Options options_;
  std::vector<Replica> replicas_;
  std::map<uint64_t, Piece> pieces_;
  std::set<uint64_t> waiting_;          // pieces, oldest first
  std::map<uint64_t, Flight> flights_;  // by request
  std::vector<Cancel> cancels_;         // for the next Step
  int64_t waiting_records_ = 0;
  int64_t last_answer_ms_ = 0;
  uint64_t next_request_id_ = 1;
};

}  // namespace polystill::soft_labels
