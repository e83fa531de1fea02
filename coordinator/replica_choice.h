#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// Which replicas of its teachers a worker is told of: all, or of a teacher with more than kMost those kMost that follow
// it on a ring (consistent hashing: Karger et al. 1997). So assignments and connections stay few where there are
// thousands of both, and a replica that comes or goes concerns few workers. The same in every process. Immutable.
class ReplicaChoice {
 public:
  static constexpr size_t kMost = 8;
  using Endpoints = google::protobuf::RepeatedPtrField<v1::TeacherEndpoint>;

  ReplicaChoice() = default;
  // Replicas of one teacher lie together.
  explicit ReplicaChoice(std::vector<v1::TeacherEndpoint> endpoints);

  bool empty() const { return endpoints_.empty(); }

  // Puts the worker's replicas into `chosen`, in the order of all; returns their digest, equal where they are.
  uint64_t For(const std::string& worker, Endpoints* chosen) const;

 private:
  struct Replica {
    // Where on the ring.
    uint64_t place = 0;
    uint64_t digest = 0;
    size_t endpoint = 0;
  };

  std::vector<v1::TeacherEndpoint> endpoints_;
  // Of each teacher, by place.
  std::vector<std::vector<Replica>> rings_;
};

}  // namespace polystill::coordinator
