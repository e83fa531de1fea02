#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "coordinator/resumption.h"
#include "coordinator/state_store.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What the machine must know from the start.
struct RunConfig {
  std::string run;
  int64_t term = 0;
  // The last one that an earlier coordinator formed. Its members may be at work in it still.
  StateStore::Generation generation;
  // By the last order to scale; 0: as the jobs say.
  int64_t wanted_workers = 0;
  // The c10d store, as workers reach it.
  std::string store_host;
  int store_port = 0;
  // Names of all stages, in the order in which they run.
  std::vector<std::string> stages;
  std::vector<v1::Teacher> teachers;
  // The classes that every teacher must answer for, in this order.
  std::vector<std::string> labels;
  Resumption resumed;
};

// The prefix in that store of what the ranks of a generation tell each other.
std::string StorePrefixOf(int64_t generation);
// Whether a key of the store, its prefix in front, is of an earlier one.
std::function<bool(const std::string& key)> OfEarlierGenerations(int64_t generation);

}  // namespace polystill::coordinator
