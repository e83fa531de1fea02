#include "coordinator/replica_choice.h"

#include <algorithm>

#include "runtime/counter_rng.h"
#include "runtime/deterministic_bytes.h"

namespace polystill::coordinator {
namespace {

uint64_t PlaceOf(const std::string& name) { return Mix64(NameWord(name)); }

}  // namespace

ReplicaChoice::ReplicaChoice(std::vector<v1::TeacherEndpoint> endpoints) : endpoints_(std::move(endpoints)) {
  for (size_t i = 0; i < endpoints_.size(); ++i) {
    const v1::TeacherEndpoint& endpoint = endpoints_[i];
    if (i == 0 || endpoint.name() != endpoints_[i - 1].name()) rings_.emplace_back();
    rings_.back().push_back({PlaceOf(endpoint.server_id()), PlaceOf(DeterministicBytes(endpoint)), i});
  }
  for (std::vector<Replica>& ring : rings_) {
    std::sort(ring.begin(), ring.end(), [](const Replica& a, const Replica& b) { return a.place < b.place; });
  }
}

uint64_t ReplicaChoice::For(const std::string& worker, Endpoints* chosen) const {
  const auto after = [](uint64_t place, const Replica& replica) { return place < replica.place; };
  const uint64_t place = PlaceOf(worker);
  std::vector<size_t> indices;
  uint64_t digest = 0;
  for (const std::vector<Replica>& ring : rings_) {
    const size_t first = std::upper_bound(ring.begin(), ring.end(), place, after) - ring.begin();
    for (size_t i = 0; i < std::min(ring.size(), kMost); ++i) {
      const Replica& replica = ring[(first + i) % ring.size()];
      indices.push_back(replica.endpoint);
      digest += replica.digest;
    }
  }
  std::sort(indices.begin(), indices.end());
  chosen->Clear();
  for (const size_t index : indices) *chosen->Add() = endpoints_[index];
  return digest;
}

}  // namespace polystill::coordinator
