#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "soft_labels/backoff.h"
#include "soft_labels/hedging.h"
#include "soft_labels/token_window.h"

namespace polystill::soft_labels {

// Decides which replica is asked for which piece of work, and when again. Knows neither gRPC nor a clock: events come
// in with the time, Step says what to do now. A piece is a handful of records that travel in one request.
//
//   Add --> waiting --Step: send--> in flight --Replied: kDeliver--> gone
//              ^                    |       ^
//              |                    +-------+ Step: a hedge, once: in flight at two replicas
//              +--- broken stream, kAgain, time-out, where it is in flight nowhere else
//                                                                   (Forget, give-up: gone from either)
//
// A replica is asked only while it is open and not pausing, within its credits (records) and its window (tokens,
// token_window.h); the one with the fewest tokens in flight first. A piece that has a home, the replica that may know
// the answer already, waits for room there and goes elsewhere only where its home is not to be asked. A replica that
// fails or refuses for want of room pauses, longer each time until it delivers again; its pieces go on to another one
// meanwhile. A piece that waits longer than most is asked of another replica too (hedging.h): the first answer counts,
// the other request is cancelled. A replica that has not answered what was hedged or has timed out is late: it gets
// nothing more as long as another one may be asked. Not thread-safe.
class Router {
 public:
  struct Options {
    // Time without any answer by any replica after which a waiting piece fails. Milliseconds.
    int64_t give_up_after_ms = 60'000;
    // Time after which a replica that does not answer a request is asked no longer. Milliseconds.
    int64_t request_timeout_ms = 30'000;
    BackoffOptions backoff = {};
    TokenWindow::Options window = {};
    Hedging::Options hedging = {};
  };
  static constexpr int kAnywhere = -1;
  // What a piece costs.
  struct Work {
    int64_t records = 0;
    int64_t tokens = 0;
    // The replica that it is asked of, if that one can be asked.
    int home = kAnywhere;
  };
  // Since the beginning.
  struct Counts {
    int64_t requests = 0;    // sent, hedges included
    int64_t hedges = 0;      // sent to a second replica while the first had not answered
    int64_t hedge_wins = 0;  // of these, answered first
    int64_t retries = 0;     // pieces that waited again: a broken stream, a refusal, a time-out
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

  void Add(uint64_t piece, Work work, int64_t now_ms);
  // Nobody waits for the piece any more.
  void Forget(uint64_t piece);

  // The replica described itself: how many records it takes in flight, and in one request.
  void Opened(int replica, int64_t credits, int64_t max_records);
  // The replica's stream has ended.
  void Broken(int replica, const absl::Status& why, int64_t now_ms);
  // The replica must never be asked again, unless it leaves: who comes back to its address may be another.
  void Refused(int replica, const absl::Status& why);
  // Another replica, with the next number; and one that is not to be asked until it is back. Without any, pieces wait.
  void Joined(std::string name);
  void Left(int replica, int64_t now_ms);
  void Back(int replica);
  // `retry_after_ms`: the replica's own hint; 0 without one. `piece` is set with kDeliver and kAgain.
  Verdict Replied(int replica, uint64_t request_id, const absl::Status& status, int64_t retry_after_ms, int64_t now_ms,
                  uint64_t* piece);

  Actions Step(int64_t now_ms);

  // The replicas that may be a home: open and not pausing, without those that are late unless all are.
  std::vector<int> Askable(int64_t now_ms) const;
  // FAILED_PRECONDITION with every reason once no replica may be asked; OK before, and without any.
  absl::Status AllRefused() const;
  // Every replica's last trouble, for messages.
  std::string Troubles() const;
  int64_t waiting_records() const { return waiting_records_; }
  const Counts& counts() const { return counts_; }

 private:
  enum class State { kDown, kConnecting, kOpen, kRefused, kLeft };
  struct Replica {
    std::string name;
    State state = State::kDown;
    int64_t since_ms = 0;       // kConnecting: when it began
    int64_t not_before_ms = 0;  // pausing until then
    int failures = 0;           // in a row
    int64_t credits = 0;
    int64_t max_records = 0;
    int64_t records_in_flight = 0;  // abandoned ones included: the replica still holds them
    int64_t tokens_in_flight = 0;   // likewise
    TokenWindow window;
    std::map<uint64_t, Work> abandoned;  // by request
    std::set<uint64_t> late;             // requests that were hedged or have timed out, and are not answered
    std::string trouble;
  };
  struct Piece {
    Work work;
    int64_t added_ms;
    uint64_t request_id = 0;  // 0: waiting
    uint64_t hedge_id = 0;    // of the second request, if there is one; then request_id is not 0
  };
  struct Flight {
    uint64_t piece;
    int replica;
    int64_t sent_ms;
  };

  void Pause(int replica, int64_t at_least_ms, const absl::Status& why, int64_t now_ms);
  // A request of a piece has come to nothing: the other goes on alone, or the piece waits again.
  void Lose(uint64_t request_id);
  void Abandon(uint64_t request_id);
  void Erase(uint64_t piece);
  void Landed(int replica, uint64_t request_id, const Work& work);
  // What an answer tells of the replicas that were asked.
  void Learn(uint64_t request_id, const Flight& flight, const Piece& piece, int64_t now_ms);
  uint64_t SendTo(int replica, uint64_t piece, int64_t now_ms, Actions& actions);
  void StepReplicas(int64_t now_ms, Actions& actions);
  void StepTimeouts(int64_t now_ms, Actions& actions);
  void StepGiveUp(int64_t now_ms, Actions& actions);
  // kNever: too few of its size were seen, or it is already.
  int64_t HedgedAtMs(const Flight& flight) const;
  void StepHedge(int64_t now_ms, Actions& actions);
  void StepSend(int64_t now_ms, Actions& actions);
  bool IsAskable(const Replica& replica, int64_t now_ms) const;
  bool HasRoom(const Replica& replica, const Work& work) const;
  // Of `among` the one that has room for `work` and the fewest tokens in flight; -1: none has.
  int LeastBusy(const std::vector<int>& among, const Work& work) const;

  const Options options_;
  std::vector<Replica> replicas_;
  std::map<uint64_t, Piece> pieces_;
  std::set<uint64_t> waiting_;          // pieces, oldest first
  std::map<uint64_t, Flight> flights_;  // by request
  std::vector<Cancel> cancels_;         // for the next Step
  int64_t with_home_ = 0;               // pieces that have one
  Hedging hedging_;
  Counts counts_;
  int64_t waiting_records_ = 0;
  int64_t last_answer_ms_ = 0;
  uint64_t next_request_id_ = 1;
};

}  // namespace polystill::soft_labels
