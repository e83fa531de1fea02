#include "soft_labels/replica_ring.h"

#include <algorithm>

#include "runtime/counter_rng.h"

namespace polystill::soft_labels {
namespace {

uint64_t PlaceOf(const std::string& id) { return Mix64(NameWord(id)); }

}  // namespace

ReplicaRing::ReplicaRing(const std::vector<std::string>& ids) {
  for (size_t i = 0; i < ids.size(); ++i) replicas_.push_back({PlaceOf(ids[i]), i});
  std::sort(replicas_.begin(), replicas_.end(), [](const Replica& a, const Replica& b) { return a.place < b.place; });
}

std::vector<size_t> ReplicaRing::For(const std::string& client) const {
  const auto after = [](uint64_t place, const Replica& replica) { return place < replica.place; };
  const size_t first = std::upper_bound(replicas_.begin(), replicas_.end(), PlaceOf(client), after) - replicas_.begin();
  std::vector<size_t> indices;
  for (size_t i = 0; i < std::min(replicas_.size(), kMost); ++i) {
    indices.push_back(replicas_[(first + i) % replicas_.size()].index);
  }
  std::sort(indices.begin(), indices.end());
  return indices;
}

}  // namespace polystill::soft_labels
