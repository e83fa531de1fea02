#include "tests/simulation/world.h"

#include <algorithm>
#include <cstdio>

namespace polystill::simulation {

void World::After(Millis delay, Deed deed, bool counts) {
  heap_.push_back({now_ + delay, order_++, counts, std::move(deed)});
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

bool World::Next() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
  const Entry next = std::move(heap_.back());
  heap_.pop_back();
  now_ = next.at;
  events_ += next.counts ? 1 : 0;
  next.deed();
  return true;
}

// SplitMix64 (Steele, Lea, Flood 2014): the standard library's distributions differ between implementations.
int64_t World::Draw(int64_t least, int64_t most) {
  random_ += 0x9e3779b97f4a7c15;
  uint64_t z = random_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  z ^= z >> 31;
  return least + static_cast<int64_t>(z % static_cast<uint64_t>(most - least + 1));
}

void World::Print(const std::string& text) const {
  const auto since = std::chrono::duration_cast<Millis>(now_.time_since_epoch() - std::chrono::hours(1));
  std::printf("%9.3f  %s\n", static_cast<double>(since.count()) / 1000, text.c_str());
}

void Process::Begin() {
  ++life_;
  alive_ = true;
  stopped_ = false;
  waiting_.clear();
}

void Process::Kill() {
  alive_ = stopped_ = false;
  waiting_.clear();
}

void Process::Continue() {
  if (!stopped_) return;
  stopped_ = false;
  for (auto& [life, deed] : std::exchange(waiting_, {})) {
    world_->After(Millis(0), [this, life = life, deed = std::move(deed)] { Do(life, deed); });
  }
}

void Process::Post(Millis delay, Deed deed, bool counts) {
  world_->After(
      delay, [this, life = life_, deed = std::move(deed)] { Do(life, deed); }, counts);
}

void Process::Do(int life, Deed deed) {
  if (!alive_ || life != life_) return;
  if (stopped_) {
    waiting_.emplace_back(life, std::move(deed));
  } else {
    deed();
  }
}

}  // namespace polystill::simulation
