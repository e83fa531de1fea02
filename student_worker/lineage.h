#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/training.pb.h"

namespace polystill::student_worker {

// Name of a state of what is trained: docs/elastic.md, "States of a model". The greater one is ahead of the other.
struct StateName {
  // In which the ranks last agreed on a state; 0: the initial weights.
  int64_t generation = 0;
  // Applied steps; -1: no state is held.
  int64_t step = 0;

  bool held() const { return step >= 0; }
  auto operator<=>(const StateName&) const = default;
};

// Where the ranks of a generation take the state from with which they go on.
struct Source {
  enum class Kind {
    kMemory,      // of `rank`; `receivers` get it from there
    kCheckpoint,  // everybody reads the assignment's
    kInitial,     // nobody holds any, and no checkpoint was admitted: everybody makes the initial weights anew
  };
  Kind kind = Kind::kInitial;
  StateName state = {};
  // kMemory: the lowest rank that holds it, its digest there, and the ranks that hold another or none, ascending.
  int rank = -1;
  std::string digest = {};
  std::vector<int> receivers = {};

  bool operator==(const Source&) const = default;
};

// What to go on from: the greatest state that a rank holds, or the assignment's checkpoint where that is greater still.
// `notes`: what each rank holds, by rank. Pure: every rank finds the same. INTERNAL: two ranks hold states of one name
// with different digests.
absl::StatusOr<Source> ChooseSource(const std::vector<v1::StateNote>& notes,
                                    const v1::WorkerOrder::Assignment& assignment);

}  // namespace polystill::student_worker
