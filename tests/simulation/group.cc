#include "tests/simulation/group.h"

#include <utility>

namespace polystill::simulation {
namespace {

// A rank waits for its peers no longer.
constexpr Millis kPeerTimeout{30'000};

}  // namespace

void Group::Join(int rank, Process* process, Heard heard) {
  Rank& own = ranks_[static_cast<size_t>(rank)];
  own.process = process;
  own.life = process->life();
  Enter(rank, {}, std::move(heard));
}

void Group::Call(int rank, Share share, Heard heard) { Enter(rank, std::move(share), std::move(heard)); }

void Group::Enter(int rank, Share share, Heard heard) {
  Rank& own = ranks_[static_cast<size_t>(rank)];
  const size_t round = own.calls++;
  own.heard = std::move(heard);
  if (broken_) {
    return world_->After(world_->Time(0, 20), [self = shared_from_this(), rank, calls = own.calls] {
      if (self->ranks_[static_cast<size_t>(rank)].calls == calls)
        self->Answer(rank, absl::AbortedError("a peer is gone"));
    });
  }
  rounds_[round].shares[rank] = std::move(share);
  rounds_.erase(rounds_.begin(), rounds_.lower_bound(round > 2 ? round - 2 : 0));
  world_->After(
      kPeerTimeout,
      [self = shared_from_this(), rank, calls = own.calls] {
        const Rank& waiting = self->ranks_[static_cast<size_t>(rank)];
        if (waiting.calls != calls || !waiting.heard || self->broken_) return;
        self->Fail(Millis(0), Millis(20));
      },
      false);
  CompleteIfAll(round);
}

bool Group::Parted() const {
  for (const Rank& a : ranks_) {
    for (const Rank& b : ranks_) {
      if (&a != &b && network_->Blocked(a.process, b.process)) return true;
    }
  }
  return false;
}

void Group::CompleteIfAll(size_t number) {
  Round& round = rounds_[number];
  if (broken_ || round.complete || round.shares.size() < ranks_.size()) return;
  if (Parted()) {
    return world_->After(
        Millis(100),
        [self = shared_from_this(), number] {
          if (self->rounds_.contains(number)) self->CompleteIfAll(number);
        },
        false);
  }
  round.complete = true;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    const Millis delay = world_->Chance(5) ? world_->Time(20, 300) : world_->Time(1, 10);
    world_->After(delay, [self = shared_from_this(), rank, number] { self->Deliver(static_cast<int>(rank), number); });
  }
}

void Group::Deliver(int rank, size_t number) {
  Rank& own = ranks_[static_cast<size_t>(rank)];
  if (own.calls != number + 1 || !own.heard) return;
  if (broken_ && world_->Chance(50)) return Answer(rank, absl::AbortedError("a peer is gone"));
  Shares shares;
  for (auto& [peer, share] : rounds_[number].shares) shares.push_back(share);
  ++own.whole;
  Answer(rank, std::move(shares));
}

void Group::Answer(int rank, absl::StatusOr<Shares> answer) {
  Rank& own = ranks_[static_cast<size_t>(rank)];
  if (!own.heard || own.gone) return;
  own.process->Do(own.life, [heard = std::exchange(own.heard, nullptr), answer = std::move(answer)] { heard(answer); });
}

void Group::Leave(int rank) {
  Rank& own = ranks_[static_cast<size_t>(rank)];
  if (std::exchange(own.gone, true)) return;
  own.heard = nullptr;
  Fail(Millis(0), Millis(60));
}

void Group::Reset() { Fail(Millis(0), Millis(60)); }

void Group::Bury(const Process* process) {
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    Rank& own = ranks_[rank];
    if (own.process != process || own.life != process->life() || own.gone) continue;
    // Now and then a whole machine dies, and its peers hear nothing of it.
    if (!world_->Chance(20)) {
      Leave(static_cast<int>(rank));
    } else {
      own.gone = true;
      own.heard = nullptr;
    }
  }
}

void Group::Fail(Millis least, Millis most) {
  broken_ = true;
  for (size_t rank = 0; rank < ranks_.size(); ++rank) {
    if (!ranks_[rank].heard) continue;
    const size_t calls = ranks_[rank].calls;
    // What was complete is heard by its own delay.
    if (calls > 0 && rounds_[calls - 1].complete) continue;
    world_->After(world_->Time(least.count(), most.count()), [self = shared_from_this(), rank, calls] {
      if (self->ranks_[rank].calls == calls) self->Answer(static_cast<int>(rank), absl::AbortedError("a peer is gone"));
    });
  }
}

}  // namespace polystill::simulation
