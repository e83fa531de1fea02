#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/run_events.h"
#include "coordinator/stragglers.h"
#include "polystill/v1/coordinator.pb.h"

// What RunMachine knows of workers: each that is here, and the last generation that was formed of them.
namespace polystill::coordinator {

// When a process was heard last, and whether this one has stood still since: that is forgiven once.
struct Heard {
  Instant at;
  bool forgiven = false;
};

struct Worker {
  StreamId stream = 0;
  std::string id;
  std::string host;
  int64_t pid = 0;
  // As it came.
  v1::Standing standing;
  Heard heard;
  int64_t arrival = 0;
  // In the last generation that it was a member of; IsMember knows whether that is still the one.
  size_t rank = 0;
  // The generation assigned last, and the one that it had begun by its last word of that.
  int64_t assigned = 0;
  int64_t begun = 0;
  // Since when it has not begun what it was assigned, though it might have; nothing once it has.
  std::optional<Instant> idles = std::nullopt;
  Slowness slowness = {};
};

// A member of the last generation.
struct Rank {
  enum class Place {
    kAwaited,  // by a new coordinator -> kIn, kLeft, kGone
    kIn,       // the generation -> kLeft, kGone
    kLeft,     // it, and waits for the next -> kGone
    kGone,     // lost to the coordinator
  };
  std::string worker;
  // 0 unless it is in, or has left.
  StreamId stream = 0;
  std::string who;
  Place place = Place::kIn;
  bool done = false;
  // Of its state when the ranks agreed, and of its weights when it was done.
  std::string agreed = {};
  std::string digest = {};
  // Nothing of this generation before the first.
  std::optional<v1::WorkerMessage::Progress> progress = std::nullopt;
  // Digest of the teachers' replicas that it was told of last.
  uint64_t replicas = 0;
  // What it held when it left, as (state_generation, step); less than any state: nothing.
  std::pair<int64_t, int64_t> held = {-1, -1};
  // When it was ordered to leave at once.
  std::optional<Instant> ordered = std::nullopt;
};

// The last generation of the job under way.
struct Generation {
  enum class Phase {
    kWhole,   // -> kEnding, kBroken
    kEnding,  // all ranks are to leave it at a step boundary -> kBroken
    kBroken,  // all ranks are to leave it at once, or are leaving it
  };
  int64_t number = 0;
  std::vector<Rank> ranks = {};
  Phase phase = Phase::kWhole;
  // How many ranks are in each place, and done: so that what one of thousands says costs nothing for the others.
  std::array<size_t, 4> at = {};
  size_t done = 0;
  // Steps applied when its ranks agreed, until one has applied another.
  std::optional<int64_t> agreed_step = std::nullopt;
  // The first that has agreed, and that was done.
  std::optional<size_t> first_agreed = std::nullopt;
  std::optional<size_t> first_done = std::nullopt;
  // When the first has left it at a boundary.
  std::optional<Instant> first_left = std::nullopt;

  void Add(Rank rank);
  void Move(Rank* rank, Rank::Place place);
  void SetDone(Rank* rank, bool is_done);
  size_t CountAt(Rank::Place place) const { return at[static_cast<size_t>(place)]; }
};

}  // namespace polystill::coordinator
