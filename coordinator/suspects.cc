#include "coordinator/suspects.h"

#include <algorithm>

namespace polystill::coordinator {

std::chrono::milliseconds Suspects::Blame(const std::string& who, Instant now, int turns) {
  constexpr int kMostDoublings = 10;
  Blamed& blamed = blamed_[who];
  const auto time = std::min(kFirstTime * (1 << std::min(blamed.times, kMostDoublings)) * turns, kAtMost);
  ++blamed.times;
  blamed.until = now + time;
  return time;
}

int Suspects::TimesBlamed(const std::string& who) const {
  const auto blamed = blamed_.find(who);
  return blamed == blamed_.end() ? 0 : blamed->second.times;
}

std::optional<Instant> Suspects::BlamedUntil(const std::string& who, Instant now) const {
  const auto blamed = blamed_.find(who);
  if (blamed == blamed_.end() || now >= blamed->second.until) return std::nullopt;
  return blamed->second.until;
}

bool Suspects::Expire(Instant now) {
  std::erase_if(blamed_, [&](const auto& entry) { return now >= entry.second.until + kForgottenAfter; });
  return std::erase_if(out_, [&](const auto& entry) { return now >= entry.second; }) > 0;
}

}  // namespace polystill::coordinator
