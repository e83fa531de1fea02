#include "soft_labels/router.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"

namespace polystill::soft_labels {
namespace {

// Longest pause that a replica may ask for.
constexpr int64_t kLongestPauseMs = 60'000;

// Whether another try, here or elsewhere, may succeed.
bool IsPassing(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status) || absl::IsDeadlineExceeded(status);
}

}  // namespace

Router::Router(std::vector<std::string> names, Options options) : options_(options) {
  for (std::string& name : names) replicas_.emplace_back().name = std::move(name);
}

void Router::Add(uint64_t piece, int64_t records, int64_t now_ms) {
  pieces_[piece] = {.records = records, .added_ms = now_ms};
  waiting_.insert(piece);
  waiting_records_ += records;
}

void Router::Forget(uint64_t piece) {
  const auto found = pieces_.find(piece);
  if (found == pieces_.end()) return;
  if (found->second.request_id != 0) {
    Abandon(found->second.request_id);
  } else {
    waiting_.erase(piece);
    waiting_records_ -= found->second.records;
  }
  pieces_.erase(found);
}

void Router::Opened(int replica, int64_t credits, int64_t max_records) {
  Replica& r = replicas_[replica];
  r.state = State::kOpen;
  r.credits = credits;
  r.max_records = std::min(max_records, credits);
}

void Router::Broken(int replica, const absl::Status& why, int64_t now_ms) {
  Replica& r = replicas_[replica];
  if (r.state == State::kRefused) return;
  r.state = State::kDown;
  std::erase_if(flights_, [&](const auto& entry) {
    if (entry.second.replica != replica) return false;
    WaitAgain(entry.second.piece);
    return true;
  });
  r.records_in_flight = 0;
  r.abandoned.clear();
  Pause(replica, 0, why, now_ms);
}

void Router::Refused(int replica, const absl::Status& why) {
  Broken(replica, why, 0);
  replicas_[replica].state = State::kRefused;
}

Router::Verdict Router::Replied(int replica, uint64_t request_id, const absl::Status& status, int64_t retry_after_ms,
                                int64_t now_ms, uint64_t* piece) {
  Replica& r = replicas_[replica];
  if (const auto late = r.abandoned.find(request_id); late != r.abandoned.end()) {
    r.records_in_flight -= late->second;
    r.abandoned.erase(late);
    return Verdict::kLate;
  }
  const auto found = flights_.find(request_id);
  if (found == flights_.end() || found->second.replica != replica) return Verdict::kUnknown;
  *piece = found->second.piece;
  // A busy replica lives; one that drains is as good as gone.
  if (!absl::IsUnavailable(status)) last_answer_ms_ = now_ms;
  r.records_in_flight -= pieces_.at(*piece).records;
  flights_.erase(found);
  if (IsPassing(status)) {
    WaitAgain(*piece);
    Pause(replica, std::clamp<int64_t>(retry_after_ms, 0, kLongestPauseMs), status, now_ms);
    return Verdict::kAgain;
  }
  r.failures = 0;
  pieces_.erase(*piece);
  return Verdict::kDeliver;
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

void Router::WaitAgain(uint64_t id) {
  Piece& piece = pieces_.at(id);
  piece.request_id = 0;
  waiting_.insert(id);
  waiting_records_ += piece.records;
}

void Router::Abandon(uint64_t request_id) {
  const Flight flight = flights_.at(request_id);
  replicas_[flight.replica].abandoned[request_id] = pieces_.at(flight.piece).records;
  cancels_.push_back({flight.replica, request_id});
  flights_.erase(request_id);
}

Router::Actions Router::Step(int64_t now_ms) {
  Actions actions;
  StepReplicas(now_ms, actions);
  StepTimeouts(now_ms, actions);
  StepGiveUp(now_ms, actions);
  StepSend(now_ms, actions);
  actions.cancel = std::move(cancels_);
  cancels_.clear();
  return actions;
}

void Router::StepReplicas(int64_t now_ms, Actions& actions) {
  for (size_t i = 0; i < replicas_.size(); ++i) {
    Replica& r = replicas_[i];
    if (r.state == State::kDown && r.not_before_ms <= now_ms) {
      r.state = State::kConnecting;
      r.since_ms = now_ms;
      actions.connect.push_back(i);
    }
    const int64_t patience_ends = r.since_ms + options_.request_timeout_ms;
    if (r.state == State::kConnecting && patience_ends <= now_ms) {
      actions.disconnect.push_back(i);
      r.since_ms = now_ms;
    }
    if (r.state == State::kConnecting)
      actions.next_ms = std::min(actions.next_ms, r.since_ms + options_.request_timeout_ms);
    if (r.not_before_ms > now_ms && r.state != State::kRefused) {
      actions.next_ms = std::min(actions.next_ms, r.not_before_ms);
    }
  }
}

void Router::StepTimeouts(int64_t now_ms, Actions& actions) {
  std::vector<uint64_t> expired;
  for (const auto& [id, flight] : flights_) {
    const int64_t end = flight.sent_ms + options_.request_timeout_ms;
    if (end <= now_ms) {
      expired.push_back(id);
    } else {
      actions.next_ms = std::min(actions.next_ms, end);
    }
  }
  for (const uint64_t id : expired) {
    const Flight flight = flights_.at(id);
    Abandon(id);
    WaitAgain(flight.piece);
    Pause(flight.replica, 0,
          absl::DeadlineExceededError(absl::StrCat("no answer within ", options_.request_timeout_ms, " ms")), now_ms);
    actions.next_ms = std::min(actions.next_ms, replicas_[flight.replica].not_before_ms);
  }
}

void Router::StepGiveUp(int64_t now_ms, Actions& actions) {
  const absl::Status refused = AllRefused();
  std::vector<uint64_t> given_up;
  for (const uint64_t id : waiting_) {
    const int64_t end = std::max(pieces_.at(id).added_ms, last_answer_ms_) + options_.give_up_after_ms;
    if (!refused.ok() || end <= now_ms) {
      given_up.push_back(id);
    } else {
      actions.next_ms = std::min(actions.next_ms, end);
    }
  }
  for (const uint64_t id : given_up) {
    actions.fail.push_back(
        {id, refused.ok() ? absl::UnavailableError(absl::StrCat("no teacher replica has answered for ",
                                                                options_.give_up_after_ms, " ms: ", Troubles()))
                          : refused});
    Forget(id);
  }
}

void Router::StepSend(int64_t now_ms, Actions& actions) {
  std::vector<uint64_t> sent;
  for (const uint64_t id : waiting_) {
    Piece& piece = pieces_.at(id);
    const int replica = Choose(piece.records, now_ms);
    if (replica < 0) break;  // in order: a large piece is not overtaken for ever
    piece.request_id = next_request_id_++;
    flights_[piece.request_id] = {id, replica, now_ms};
    replicas_[replica].records_in_flight += piece.records;
    waiting_records_ -= piece.records;
    actions.send.push_back({replica, piece.request_id, id});
    actions.next_ms = std::min(actions.next_ms, now_ms + options_.request_timeout_ms);
    sent.push_back(id);
  }
  for (const uint64_t id : sent) waiting_.erase(id);
}

int Router::Choose(int64_t records, int64_t now_ms) const {
  int best = -1;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    const Replica& r = replicas_[i];
    if (r.state != State::kOpen || r.not_before_ms > now_ms || r.max_records < records) continue;
    if (r.records_in_flight + records > r.credits) continue;
    if (best < 0 || r.records_in_flight < replicas_[best].records_in_flight) best = i;
  }
  return best;
}

absl::Status Router::AllRefused() const {
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
