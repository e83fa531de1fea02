#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "coordinator/run_events.h"

namespace polystill::coordinator {

// Workers that generations are formed without for a while: those that the others seem not to reach, and those that come
// from where another has just failed. The blame is on a worker's id or on its host; who is blamed again before an hour
// has passed is left out for twice as long, at most an hour. Holds no more than was blamed within some hours. Not
// thread-safe.
class Suspects {
 public:
  static constexpr std::chrono::milliseconds kFirstTime{60'000};
  static constexpr std::chrono::milliseconds kAtMost{3'600'000};
  static constexpr std::chrono::milliseconds kForgottenAfter{3'600'000};

  // For how long: `turns` times as long as it would be otherwise.
  std::chrono::milliseconds Blame(const std::string& who, Instant now, int turns = 1);
  int TimesBlamed(const std::string& who) const;
  // Until when; nothing unless that is to come.
  std::optional<Instant> BlamedUntil(const std::string& who, Instant now) const;
  void Acquit(const std::string& who) { blamed_.erase(who); }

  // `worker`: its id.
  void LeaveOut(const std::string& worker, Instant until) { out_[worker] = until; }
  void TakeBack(const std::string& worker) { out_.erase(worker); }
  bool IsOut(const std::string& worker) const { return out_.contains(worker); }
  // Id -> until when: nobody is out any longer before Expire has seen that.
  const std::map<std::string, Instant>& out() const { return out_; }
  // True when somebody was out whose time is over.
  bool Expire(Instant now);

 private:
  struct Blamed {
    int times = 0;
    Instant until;
  };
  std::map<std::string, Blamed> blamed_;
  std::map<std::string, Instant> out_;
};

}  // namespace polystill::coordinator
