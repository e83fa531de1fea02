#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "polystill/v1/coordinator.pb.h"
#include "soft_labels/replica_ring.h"

namespace polystill::coordinator {

// Which replicas of its teachers a worker is told of: those that are its own on each teacher's ring. So assignments
// stay short too. The same in every process. Immutable.
class ReplicaChoice {
 public:
  static constexpr size_t kMost = soft_labels::ReplicaRing::kMost;
  using Endpoints = google::protobuf::RepeatedPtrField<v1::TeacherEndpoint>;

  ReplicaChoice() = default;
  // Replicas of one teacher lie together.
  explicit ReplicaChoice(std::vector<v1::TeacherEndpoint> endpoints);

  bool empty() const { return endpoints_.empty(); }

  // Puts the worker's replicas into `chosen`, in the order of all; returns their digest, equal where they are.
  uint64_t For(const std::string& worker, Endpoints* chosen) const;

 private:
  // Of one teacher.
  struct Ring {
    soft_labels::ReplicaRing replicas;
    size_t first;  // of its endpoints
  };

  std::vector<v1::TeacherEndpoint> endpoints_;
  std::vector<uint64_t> digests_;  // of each endpoint
  std::vector<Ring> rings_;
};

}  // namespace polystill::coordinator
