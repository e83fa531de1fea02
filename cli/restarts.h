#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <string>

namespace polystill::cli {

// Decides when a process that was killed is started again: at once the first time within a minute, then a second after
// its end; not any more once that was done kMost times within a minute. Knows no clock. Not thread-safe.
class Restarts {
 public:
  using Instant = std::chrono::steady_clock::time_point;
  static constexpr size_t kMost = 4;

  // For the end of `name`, seen at `now`, which never goes back; counts as a restart unless there is none.
  std::optional<Instant> Next(const std::string& name, Instant now) {
    std::deque<Instant>& before = before_[name];
    while (!before.empty() && now - before.front() >= std::chrono::minutes(1)) before.pop_front();
    if (before.size() >= kMost) return std::nullopt;
    const auto pause = before.empty() ? std::chrono::seconds(0) : std::chrono::seconds(1);
    before.push_back(now + pause);
    return before.back();
  }

 private:
  std::map<std::string, std::deque<Instant>> before_;
};

}  // namespace polystill::cli
