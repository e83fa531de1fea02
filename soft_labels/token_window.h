#pragma once

#include <cstdint>
#include <limits>

namespace polystill::soft_labels {

// How many tokens a replica is given at once: a window that follows how fast it answers, so that a slow replica holds
// little and work that waits can still go to a faster one. Credits bound it beside, whatever the window is.
//
// Additive increase, multiplicative decrease, as TCP's (Chiu and Jain 1989; RFC 5681), with delay as the sign of too
// much, as in TCP Vegas (Brakmo and Peterson 1995):
//
//   an answer in time       the window grows by the answer's tokens until the first cut, then by as many a full window;
//                           only where at least half of the window was in use (RFC 7661)
//   an answer that is slow  one cut, to `cut` of the window. Slow: later than `patience_ms`, and than `slack` times
//                           what so many tokens took at best since the window began (a best that is forgotten while
//                           the replica is never idle would rise with the queue, and the window with it)
//   a refusal for want of   the same cut
//   room, or a time-out
//
// A cut answers for all that was sent before it: requests of that time cut no more. One request always fits, whatever
// its size. State and functions are pure; times are milliseconds from any origin.
struct TokenWindow {
  struct Options {
    int64_t first_tokens = 32'768;
    int64_t most_tokens = int64_t{1} << 26;
    // Time in which batches of any size are filled and lengths sorted: what waits longer gains nothing.
    int64_t patience_ms = 2'000;
    double slack = 3;
    double cut = 0.7;
  };
  struct Answer {
    int64_t tokens = 0;
    int64_t sent_ms = 0;
    int64_t now_ms = 0;
    // In flight when it came, itself included.
    int64_t in_flight = 0;
  };

  // Tokens that may be in flight; 0: the first of the options.
  double tokens = 0;
  bool was_cut = false;
  int64_t cut_ms = 0;
  // Of the answers so far.
  double least_ms_per_token = std::numeric_limits<double>::infinity();
};

// Whether so many tokens may be sent to who has `in_flight` already.
bool Fits(const TokenWindow& window, const TokenWindow::Options& options, int64_t in_flight, int64_t tokens);

// The window after an answer.
TokenWindow After(TokenWindow window, const TokenWindow::Options& options, const TokenWindow::Answer& answer);

// The window after a request sent at `sent_ms` was refused for want of room, or timed out.
TokenWindow AfterOverload(TokenWindow window, const TokenWindow::Options& options, int64_t sent_ms, int64_t now_ms);

}  // namespace polystill::soft_labels
