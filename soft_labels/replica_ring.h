#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace polystill::soft_labels {

// Which of a teacher's replicas a client uses: all, or of more than kMost those kMost that follow it on a ring
// (consistent hashing: Karger et al. 1997). So connections stay few where there are thousands of both, and a replica
// that comes or goes concerns few clients. The same in every process. Immutable.
class ReplicaRing {
 public:
  static constexpr size_t kMost = 8;

  // `ids` are the replicas' own.
  explicit ReplicaRing(const std::vector<std::string>& ids);

  // Indices of the ids, ascending.
  std::vector<size_t> For(const std::string& client) const;

 private:
  struct Replica {
    uint64_t place;  // on the ring
    size_t index;
  };
  std::vector<Replica> replicas_;  // by place
};

}  // namespace polystill::soft_labels
