#pragma once

#include <cstdint>
#include <string>

#include "tests/simulation/bugs.h"

namespace polystill::simulation {

// One run from its first process to its report, with faults on the way: all of it follows from the seed.
struct Outcome {
  // Empty, or the first invariant that was broken, by its number in docs/elastic.md, and how.
  std::string violation;
  // Messages, collectives, deaths and waits of programs; no ticks nor heartbeats.
  int64_t events = 0;
  int64_t faults = 0;
  // Workers that were left out for being slow, given up since they did not follow orders, and left out since the others
  // seemed not to reach them.
  int64_t left_out = 0;
  int64_t given_up = 0;
  int64_t not_reached = 0;
};
Outcome RunSchedule(uint64_t seed, const Bugs& bugs = {}, bool verbose = false);

}  // namespace polystill::simulation
