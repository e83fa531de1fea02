#include "coordinator/replica_choice.h"

#include "runtime/counter_rng.h"
#include "runtime/deterministic_bytes.h"

namespace polystill::coordinator {

ReplicaChoice::ReplicaChoice(std::vector<v1::TeacherEndpoint> endpoints) : endpoints_(std::move(endpoints)) {
  for (size_t first = 0; first < endpoints_.size();) {
    std::vector<std::string> ids;
    size_t last = first;
    for (; last < endpoints_.size() && endpoints_[last].name() == endpoints_[first].name(); ++last) {
      ids.push_back(endpoints_[last].server_id());
      digests_.push_back(Mix64(NameWord(DeterministicBytes(endpoints_[last]))));
    }
    rings_.push_back({soft_labels::ReplicaRing(ids), first});
    first = last;
  }
}

uint64_t ReplicaChoice::For(const std::string& worker, Endpoints* chosen) const {
  uint64_t digest = 0;
  chosen->Clear();
  for (const Ring& ring : rings_) {
    for (const size_t index : ring.replicas.For(worker)) {
      *chosen->Add() = endpoints_[ring.first + index];
      digest += digests_[ring.first + index];
    }
  }
  return digest;
}

}  // namespace polystill::coordinator
