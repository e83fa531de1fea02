#include "soft_labels/rendezvous.h"

#include "runtime/counter_rng.h"

namespace polystill::soft_labels {

uint64_t WordOf(const v1::LabelInput& input) {
  if (input.has_text()) return NameWord(input.text());
  uint64_t word = 0;
  for (const int32_t id : input.ids().ids()) word = CombineKey(word, id);
  return word;
}

size_t Rendezvous(uint64_t word, const std::vector<uint64_t>& replicas) {
  size_t best = 0;
  uint64_t most = 0;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const uint64_t hash = CombineKey(word, replicas[i]);
    if (i > 0 && hash <= most) continue;
    best = i;
    most = hash;
  }
  return best;
}

}  // namespace polystill::soft_labels
