#include "soft_labels/token_window.h"

#include <gtest/gtest.h>

#include <string>
#include <variant>
#include <vector>

namespace polystill::soft_labels {
namespace {

constexpr TokenWindow::Options kOptions = {
    .first_tokens = 1'000, .most_tokens = 4'000, .patience_ms = 100, .slack = 2, .cut = 0.5};

struct Refusal {
  int64_t sent_ms;
  int64_t now_ms;
};
using Event = std::variant<TokenWindow::Answer, Refusal>;

TokenWindow After(const std::vector<Event>& events) {
  TokenWindow window;
  for (const Event& event : events) {
    if (const auto* answer = std::get_if<TokenWindow::Answer>(&event)) {
      window = After(window, kOptions, *answer);
    } else {
      const Refusal& refusal = std::get<Refusal>(event);
      window = AfterOverload(window, kOptions, refusal.sent_ms, refusal.now_ms);
    }
  }
  return window;
}

TEST(TokenWindowTest, FollowsTheReplica) {
  struct Case {
    std::string name;
    std::vector<Event> events;
    double tokens;  // 0: still the first
  };
  using A = TokenWindow::Answer;
  const Case cases[] = {
      {"nothing yet", {}, 0},
      {"in time and in use: grows by the answer", {A{400, 0, 50, 800}}, 1'400},
      {"twice", {A{400, 0, 50, 800}, A{400, 0, 60, 900}}, 1'800},
      {"in time, but less than half in use", {A{400, 0, 50, 499}}, 0},
      {"never above the most", {A{9'000, 0, 50, 9'000}}, 4'000},
      {"a refusal halves", {Refusal{0, 10}}, 500},
      {"what was sent before a cut cuts no more", {Refusal{0, 10}, Refusal{10, 20}, Refusal{3, 30}}, 500},
      {"what was sent after does", {Refusal{0, 10}, Refusal{11, 20}}, 250},
      {"after a cut it grows by an answer a full window",
       {Refusal{0, 10}, A{250, 11, 40, 500}},
       500 + 250. * 250 / 500},
      {"slow: later than the patience and than twice the best", {A{100, 0, 30, 1'000}, A{100, 40, 141, 1'000}}, 550},
      {"as late as the patience is in time", {A{100, 0, 30, 1'000}, A{100, 40, 140, 1'000}}, 1'200},
      {"late, but no later than twice the best of so many tokens", {A{100, 0, 90, 0}, A{200, 100, 460, 1'000}}, 1'200},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_DOUBLE_EQ(After(c.events).tokens, c.tokens);
  }
}

TEST(TokenWindowTest, FitsUpToTheWindowAndOneRequestAlways) {
  struct Case {
    double window;
    int64_t in_flight, tokens;
    bool fits;
  };
  const Case cases[] = {
      {0, 0, 1'000, true},   {0, 999, 1, true},      {0, 999, 2, false}, {0, 0, 1'000'000, true},
      {500, 400, 100, true}, {500, 400, 101, false}, {1, 0, 50, true},   {1, 1, 1, false},
  };
  for (const Case& c : cases) {
    TokenWindow window;
    window.tokens = c.window;
    EXPECT_EQ(Fits(window, kOptions, c.in_flight, c.tokens), c.fits)
        << c.window << ' ' << c.in_flight << ' ' << c.tokens;
  }
}

// A replica that computes `rate` tokens a millisecond, one request after the other, and is given all that fits.
TEST(TokenWindowTest, SettlesWhereAnswersTakeThePatience) {
  for (const int64_t rate : {2, 10, 30}) {
    TokenWindow window;
    std::vector<int64_t> sent;  // of what is in flight, 50 tokens each
    size_t answered = 0;
    int64_t now = 0;
    for (int turn = 0; turn < 5'000; ++turn) {
      while (Fits(window, kOptions, 50 * static_cast<int64_t>(sent.size() - answered), 50)) sent.push_back(now);
      now += 50 / rate + (50 % rate > 0 ? 1 : 0);
      const int64_t in_flight = 50 * static_cast<int64_t>(sent.size() - answered);
      window = After(window, kOptions, {50, sent[answered++], now, in_flight});
    }
    const double ms_a_request = 50 / rate + (50 % rate > 0 ? 1 : 0);
    const double fills_patience = 50 * kOptions.patience_ms / ms_a_request;
    EXPECT_GE(window.tokens, 0.4 * fills_patience) << rate;
    EXPECT_LE(window.tokens, 1.2 * fills_patience) << rate;
  }
}

}  // namespace
}  // namespace polystill::soft_labels
