#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "coordinator/run_events.h"

namespace polystill::simulation {

using coordinator::Instant;
using Millis = std::chrono::milliseconds;
using Deed = std::function<void()>;

// Virtual time: what is to happen when, and all chance, which one seed decides. Nothing here waits or knows a clock, so
// that a schedule is the same each time that its seed is given.
class World {
 public:
  // `verbose`: notes are printed.
  World(uint64_t seed, bool verbose) : verbose_(verbose), random_(seed) {}

  Instant now() const { return now_; }
  // In order of time, then of being told. `counts`: it is one of the schedule's events (the ticking of clocks is not).
  void After(Millis delay, Deed deed, bool counts = true);
  // The next deed; false when there is none.
  bool Next();
  int64_t events() const { return events_; }

  // From `least` to `most`, both of them possible.
  int64_t Draw(int64_t least, int64_t most);
  Millis Time(int64_t least_ms, int64_t most_ms) { return Millis(Draw(least_ms, most_ms)); }
  bool Chance(int percent) { return Draw(1, 100) <= percent; }

  // A line of the history to read; `text` is made only where it is printed.
  template <typename Text>
  void Note(const Text& text) const {
    if (verbose_) Print(text());
  }

 private:
  struct Entry {
    Instant at;
    int64_t order;
    bool counts;
    Deed deed;
    bool operator>(const Entry& other) const { return std::tie(at, order) > std::tie(other.at, other.order); }
  };
  void Print(const std::string& text) const;

  const bool verbose_;
  uint64_t random_;
  // As runs of one hour: whoever takes time for a number has it wrong.
  Instant now_{std::chrono::hours(1)};
  // A heap, the earliest first.
  std::vector<Entry> heap_;
  int64_t order_ = 0;
  int64_t events_ = 0;
};

// A process: its deeds wait while it is stopped (SIGSTOP) and are lost with its life (SIGKILL).
class Process {
 public:
  Process(World* world, std::string name) : world_(world), name_(std::move(name)) {}
  virtual ~Process() = default;

  const std::string& name() const { return name_; }
  int life() const { return life_; }
  bool alive() const { return alive_; }
  bool stopped() const { return stopped_; }

  void Begin();
  virtual void Kill();
  void Stop() { stopped_ = alive_; }
  void Continue();

  // In the life that it has now.
  void Post(Millis delay, Deed deed, bool counts = true);
  // Now, or when it goes on, if that life is not over.
  void Do(int life, Deed deed);

 protected:
  World& world() const { return *world_; }

 private:
  World* const world_;
  const std::string name_;
  int life_ = 0;
  bool alive_ = false;
  bool stopped_ = false;
  std::deque<std::pair<int, Deed>> waiting_;
};

}  // namespace polystill::simulation
