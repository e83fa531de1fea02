#include "soft_labels/router.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

// What happens to replicas and pieces; what is done about it is in router_step.cc.
namespace polystill::soft_labels {
namespace {

// Longest pause that a replica may ask for.
constexpr int64_t kLongestPauseMs = 60'000;

// Whether another try, here or elsewhere, may succeed.
bool IsPassing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

Router::Router(std::vector<std::string> names, Options options) : options_(options), hedging_(options.hedging) {
  for (std::string& name : names) replicas_.emplace_back().name = std::move(name);
}

void Router::Add(uint64_t piece, Work work, int64_t now_ms) {
  pieces_[piece] = {.work = work, .added_ms = now_ms};
  waiting_.insert(piece);
  waiting_records_ += work.records;
  with_home_ += work.home == kAnywhere ? 0 : 1;
}

void Router::Erase(uint64_t piece) {
  with_home_ -= pieces_.at(piece).work.home == kAnywhere ? 0 : 1;
  pieces_.erase(piece);
}

void Router::Forget(uint64_t id) {
  const auto found = pieces_.find(id);
  if (found == pieces_.end()) return;
  const Piece piece = found->second;
  if (piece.request_id == 0) {
    waiting_.erase(id);
    waiting_records_ -= piece.work.records;
  }
  for (const uint64_t request : {piece.request_id, piece.hedge_id}) {
    if (request != 0) Abandon(request);
  }
  Erase(id);
}

void Router::Opened(int replica, int64_t credits, int64_t max_records) {
  Replica& r = replicas_[replica];
  r.state = State::kOpen;
  r.credits = credits;
  r.max_records = std::min(max_records, credits);
  r.window = {};
}

void Router::Broken(int replica, const absl::Status& why, int64_t now_ms) {
  Replica& r = replicas_[replica];
  if (r.state == State::kRefused || r.state == State::kLeft) return;
  r.state = State::kDown;
  std::vector<uint64_t> lost;
  for (const auto& [id, flight] : flights_) {
    if (flight.replica == replica) lost.push_back(id);
  }
  for (const uint64_t id : lost) Lose(id);
  r.records_in_flight = r.tokens_in_flight = 0;
  r.abandoned.clear();
  r.late.clear();
  Pause(replica, 0, why, now_ms);
}

void Router::Refused(int replica, const absl::Status& why) {
  Broken(replica, why, 0);
  replicas_[replica].state = State::kRefused;
}

void Router::Joined(std::string name) { replicas_.emplace_back().name = std::move(name); }

void Router::Left(int replica, int64_t now_ms) {
  Broken(replica, absl::UnavailableError("no replica any more"), now_ms);
  replicas_[replica].state = State::kLeft;
}

void Router::Back(int replica) {
  if (replicas_[replica].state == State::kLeft) replicas_[replica].state = State::kDown;
}

Router::Verdict Router::Replied(int replica, uint64_t request_id, const absl::Status& status, int64_t retry_after_ms,
                                int64_t now_ms, uint64_t* piece) {
  Replica& r = replicas_[replica];
  if (const auto late = r.abandoned.find(request_id); late != r.abandoned.end()) {
    Landed(replica, request_id, late->second);
    r.abandoned.erase(late);
    return Verdict::kLate;
  }
  const auto found = flights_.find(request_id);
  if (found == flights_.end() || found->second.replica != replica) return Verdict::kUnknown;
  const Flight flight = found->second;
  const Work work = pieces_.at(flight.piece).work;
  *piece = flight.piece;
  // A busy replica lives; one that drains is as good as gone.
  if (!absl::IsUnavailable(status)) last_answer_ms_ = now_ms;
  if (IsPassing(status)) {
    Landed(replica, request_id, work);
    Lose(request_id);
    if (!absl::IsUnavailable(status)) r.window = AfterOverload(r.window, options_.window, flight.sent_ms, now_ms);
    Pause(replica, std::clamp<int64_t>(retry_after_ms, 0, kLongestPauseMs), status, now_ms);
    return Verdict::kAgain;
  }
  Learn(request_id, flight, pieces_.at(*piece), now_ms);
  Landed(replica, request_id, work);
  flights_.erase(request_id);
  Piece& answered = pieces_.at(*piece);
  for (uint64_t* request : {&answered.request_id, &answered.hedge_id}) {
    if (*request != 0 && *request != request_id) Abandon(*request);
  }
  Erase(*piece);
  r.failures = 0;
  return Verdict::kDeliver;
}

void Router::Landed(int replica, uint64_t request_id, const Work& work) {
  Replica& r = replicas_[replica];
  r.records_in_flight -= work.records;
  r.tokens_in_flight -= work.tokens;
  r.late.erase(request_id);
}

void Router::Learn(uint64_t request_id, const Flight& flight, const Piece& piece, int64_t now_ms) {
  Replica& r = replicas_[flight.replica];
  r.window = After(
      r.window, options_.window,
      {.tokens = piece.work.tokens, .sent_ms = flight.sent_ms, .now_ms = now_ms, .in_flight = r.tokens_in_flight});
  const bool by_hedge = request_id == piece.hedge_id;
  counts_.hedge_wins += by_hedge ? 1 : 0;
  // Where the hedge was faster the first request took at least so long; without it the slow ones would be forgotten.
  const int64_t since_ms = by_hedge ? flights_.at(piece.request_id).sent_ms : flight.sent_ms;
  hedging_.Took(piece.work.tokens, now_ms - since_ms);
}

void Router::Pause(int replica, int64_t at_least_ms, const absl::Status& why, int64_t now_ms) {
  Replica& r = replicas_[replica];
  r.trouble = why.ToString();
  int64_t pause = at_least_ms;
  if (r.not_before_ms <= now_ms) {  // several requests may fail of one cause: that is one failure
    pause = std::max(pause, BackoffMs(options_.backoff, r.failures++, CombineKey(NameWord(r.name), now_ms)));
  }
  r.not_before_ms = std::max(r.not_before_ms, now_ms + pause);
}

void Router::Lose(uint64_t request_id) {
  const uint64_t id = flights_.at(request_id).piece;
  flights_.erase(request_id);
  Piece& piece = pieces_.at(id);
  if (piece.request_id == request_id) piece.request_id = piece.hedge_id;
  piece.hedge_id = 0;
  if (piece.request_id != 0) return;
  waiting_.insert(id);
  waiting_records_ += piece.work.records;
  ++counts_.retries;
}

void Router::Abandon(uint64_t request_id) {
  const Flight flight = flights_.at(request_id);
  replicas_[flight.replica].abandoned[request_id] = pieces_.at(flight.piece).work;
  cancels_.push_back({flight.replica, request_id});
  flights_.erase(request_id);
}

absl::Status Router::AllRefused() const {
  if (replicas_.empty()) return absl::OkStatus();
  for (const Replica& r : replicas_) {
    if (r.state != State::kRefused) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("no teacher replica can be used: ", Troubles()));
}

std::string Router::Troubles() const {
  std::string all;
  for (const Replica& r : replicas_) {
    absl::StrAppend(&all, all.empty() ? "" : "; ", r.name, ": ", r.trouble.empty() ? "did not answer" : r.trouble);
  }
  return all;
}

}  // namespace polystill::soft_labels
