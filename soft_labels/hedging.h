#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

namespace polystill::soft_labels {

// When a request that is not answered yet is asked of another replica too (Dean and Barroso 2013, "The Tail at Scale"):
// once it has waited longer than most requests of its size did lately, and no more often than a small share of all
// requests, so that hedging cannot overload who is slow already. Knows no clock. Not thread-safe.
class Hedging {
 public:
  struct Options {
    // Of the last times of requests of about the same tokens.
    double percentile = 0.95;
    // With fewer times than that none is hedged.
    size_t least_samples = 20;
    // Hedges for each request, over any time; and how many may have been saved up.
    double share = 0.05;
    double most_saved = 16;
    // No request is hedged before: a busy machine may keep any thread waiting for as long, and looking ahead makes up
    // for it. Milliseconds.
    int64_t least_ms = 50;
  };

  explicit Hedging(Options options) : options_(options) {}

  // A request was sent that is no hedge.
  void Asked();
  // A hedge was sent.
  void Hedged() { saved_ -= 1; }
  // A request of so many tokens was answered after so long, or had not been when its hedge was.
  void Took(int64_t tokens, int64_t ms);

  // Whether the share allows another hedge.
  bool MayHedge() const { return saved_ >= 1; }
  // Milliseconds after which a request is hedged; none as long as too few of its size were seen.
  std::optional<int64_t> DueAfterMs(int64_t tokens) const;

 private:
  // Requests whose tokens have the same binary logarithm, rounded down.
  struct Size {
    std::vector<int64_t> last_ms;  // a ring
    size_t next = 0;
    std::optional<int64_t> due_ms;
  };
  static constexpr size_t kRemembered = 256;

  const Options options_;
  std::array<Size, 64> sizes_;
  double saved_ = 0;
};

}  // namespace polystill::soft_labels
