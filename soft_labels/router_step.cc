#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "soft_labels/router.h"

// What the router does now.
namespace polystill::soft_labels {

Router::Actions Router::Step(int64_t now_ms) {
  Actions actions;
  StepReplicas(now_ms, actions);
  StepTimeouts(now_ms, actions);
  StepGiveUp(now_ms, actions);
  StepHedge(now_ms, actions);
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
    if (r.not_before_ms > now_ms && r.state != State::kRefused && r.state != State::kLeft) {
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
    Replica& r = replicas_[flight.replica];
    r.abandoned[id] = pieces_.at(flight.piece).work;
    r.late.insert(id);
    r.window = AfterOverload(r.window, options_.window, flight.sent_ms, now_ms);
    cancels_.push_back({flight.replica, id});
    Lose(id);
    Pause(flight.replica, 0,
          absl::DeadlineExceededError(absl::StrCat("no answer within ", options_.request_timeout_ms, " ms")), now_ms);
    actions.next_ms = std::min(actions.next_ms, r.not_before_ms);
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

int64_t Router::HedgedAtMs(const Flight& flight) const {
  const Piece& piece = pieces_.at(flight.piece);
  const std::optional<int64_t> after_ms = hedging_.DueAfterMs(piece.work.tokens);
  const bool may = replicas_.size() > 1 && piece.hedge_id == 0 && after_ms.has_value();
  return may ? flight.sent_ms + *after_ms : kNever;
}

void Router::StepHedge(int64_t now_ms, Actions& actions) {
  std::vector<uint64_t> due;
  for (const auto& [id, flight] : flights_) {
    const int64_t at_ms = HedgedAtMs(flight);
    if (at_ms <= now_ms) {
      due.push_back(id);
    } else {
      actions.next_ms = std::min(actions.next_ms, at_ms);
    }
  }
  for (const uint64_t id : due) {
    if (!hedging_.MayHedge()) return;
    const Flight flight = flights_.at(id);
    Piece& piece = pieces_.at(flight.piece);
    std::vector<int> others;
    for (size_t i = 0; i < replicas_.size(); ++i) {
      const bool is_other = static_cast<int>(i) != flight.replica;
      if (is_other && replicas_[i].late.empty() && IsAskable(replicas_[i], now_ms)) others.push_back(i);
    }
    const int other = LeastBusy(others, piece.work);
    if (other < 0) continue;
    piece.hedge_id = SendTo(other, flight.piece, now_ms, actions);
    replicas_[flight.replica].late.insert(id);
    hedging_.Hedged();
    ++counts_.hedges;
  }
}

void Router::StepSend(int64_t now_ms, Actions& actions) {
  const std::vector<int> askable = Askable(now_ms);
  if (askable.empty()) return;
  std::vector<uint64_t> sent;
  std::set<int> full;  // homes, and kAnywhere: in order, so that a large piece is not overtaken for ever
  for (const uint64_t id : waiting_) {
    Piece& piece = pieces_.at(id);
    const bool at_home = std::binary_search(askable.begin(), askable.end(), piece.work.home);
    const int place = at_home ? piece.work.home : kAnywhere;
    if (full.contains(place)) continue;
    const int replica = LeastBusy(at_home ? std::vector<int>{place} : askable, piece.work);
    if (replica < 0) {
      full.insert(place);
      if (full.size() >= askable.size() || (place == kAnywhere && with_home_ == 0)) break;
      continue;
    }
    piece.request_id = SendTo(replica, id, now_ms, actions);
    waiting_records_ -= piece.work.records;
    hedging_.Asked();
    actions.next_ms = std::min(actions.next_ms, HedgedAtMs(flights_.at(piece.request_id)));
    sent.push_back(id);
  }
  for (const uint64_t id : sent) waiting_.erase(id);
}

uint64_t Router::SendTo(int replica, uint64_t piece, int64_t now_ms, Actions& actions) {
  const Work& work = pieces_.at(piece).work;
  const uint64_t request_id = next_request_id_++;
  flights_[request_id] = {piece, replica, now_ms};
  replicas_[replica].records_in_flight += work.records;
  replicas_[replica].tokens_in_flight += work.tokens;
  ++counts_.requests;
  actions.send.push_back({replica, request_id, piece});
  actions.next_ms = std::min(actions.next_ms, now_ms + options_.request_timeout_ms);
  return request_id;
}

bool Router::IsAskable(const Replica& r, int64_t now_ms) const {
  return r.state == State::kOpen && r.not_before_ms <= now_ms;
}

bool Router::HasRoom(const Replica& r, const Work& work) const {
  return r.max_records >= work.records && r.records_in_flight + work.records <= r.credits &&
         Fits(r.window, options_.window, r.tokens_in_flight, work.tokens);
}

std::vector<int> Router::Askable(int64_t now_ms) const {
  std::vector<int> in_time, late;
  for (size_t i = 0; i < replicas_.size(); ++i) {
    if (IsAskable(replicas_[i], now_ms)) (replicas_[i].late.empty() ? in_time : late).push_back(i);
  }
  return in_time.empty() ? late : in_time;
}

int Router::LeastBusy(const std::vector<int>& among, const Work& work) const {
  int best = -1;
  for (const int i : among) {
    if (!HasRoom(replicas_[i], work)) continue;
    if (best < 0 || replicas_[i].tokens_in_flight < replicas_[best].tokens_in_flight) best = i;
  }
  return best;
}

}  // namespace polystill::soft_labels
