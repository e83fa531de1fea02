#pragma once

#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace polystill::student_worker {

// What something takes a step, lately: its mean over the last seconds, or of the last step where that takes longer.
class LatelyMean {
 public:
  // A step has ended: `value` of it; `seconds` since the step before ended.
  double Add(double value, double seconds) {
    const double kept = std::exp(-seconds / kWindow);
    sum_ = kept * sum_ + value;
    steps_ = kept * steps_ + 1;
    return sum_ / steps_;
  }

 private:
  static constexpr double kWindow = 2;  // seconds

  double sum_ = 0;
  double steps_ = 0;
};

// Where the time of the steps goes. Not thread-safe.
class Phases {
 public:
  enum Phase { kForward, kBackward, kUpdate, kCount };

  void Begin() { last_ = Clock::now(); }
  // What has passed since Begin or the last End belongs to `phase`.
  void End(Phase phase) {
    const Clock::time_point now = Clock::now();
    seconds_[phase] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }

  // Milliseconds of each phase, for the log.
  std::string PerStep(int64_t steps, double wait_seconds) const {
    const double scale = 1e3 / static_cast<double>(steps);
    return absl::StrFormat("data wait %.2f, forward and losses %.2f, backward and all-reduce %.2f, update %.2f",
                           scale * wait_seconds, scale * seconds_[kForward], scale * seconds_[kBackward],
                           scale * seconds_[kUpdate]);
  }

  // Seconds of this rank's own work, without waiting for others, since the call before.
  double TakeOwnSeconds() {
    const double own = seconds_[kForward] + seconds_[kUpdate];
    return own - std::exchange(taken_, own);
  }

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point last_;
  std::array<double, kCount> seconds_ = {};
  double taken_ = 0;  // by TakeOwnSeconds
};

}  // namespace polystill::student_worker
