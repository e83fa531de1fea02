#include "soft_labels/token_window.h"

#include <algorithm>

namespace polystill::soft_labels {
namespace {

double TokensOf(const TokenWindow& window, const TokenWindow::Options& options) {
  return window.tokens > 0 ? window.tokens : static_cast<double>(options.first_tokens);
}

// Milliseconds beyond which an answer about so many tokens is slow.
double SlowAfterMs(const TokenWindow& window, const TokenWindow::Options& options, int64_t tokens) {
  const double best_ms = window.least_ms_per_token * static_cast<double>(tokens);
  return std::max(static_cast<double>(options.patience_ms), options.slack * best_ms);
}

}  // namespace

bool Fits(const TokenWindow& window, const TokenWindow::Options& options, int64_t in_flight, int64_t tokens) {
  return in_flight == 0 || static_cast<double>(in_flight + tokens) <= TokensOf(window, options);
}

TokenWindow After(TokenWindow window, const TokenWindow::Options& options, const TokenWindow::Answer& answer) {
  const auto tokens = static_cast<double>(std::max<int64_t>(answer.tokens, 1));
  const auto took_ms = static_cast<double>(answer.now_ms - answer.sent_ms);
  window.least_ms_per_token = std::min(window.least_ms_per_token, took_ms / tokens);
  if (took_ms > SlowAfterMs(window, options, answer.tokens)) {
    return AfterOverload(window, options, answer.sent_ms, answer.now_ms);
  }
  const double before = TokensOf(window, options);
  if (2 * static_cast<double>(answer.in_flight) < before) return window;
  const double grown = before + (window.was_cut ? tokens * tokens / before : tokens);
  window.tokens = std::min(grown, static_cast<double>(options.most_tokens));
  return window;
}

TokenWindow AfterOverload(TokenWindow window, const TokenWindow::Options& options, int64_t sent_ms, int64_t now_ms) {
  if (window.was_cut && sent_ms <= window.cut_ms) return window;
  window.tokens = std::max(1.0, options.cut * TokensOf(window, options));
  window.was_cut = true;
  window.cut_ms = now_ms;
  return window;
}

}  // namespace polystill::soft_labels
