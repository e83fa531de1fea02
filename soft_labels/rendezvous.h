#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "polystill/v1/teacher.pb.h"

namespace polystill::soft_labels {

// A word for what is asked about: the text, or the token ids. What else a label depends on is left out, so that all
// labels of an input are asked of one replica.
uint64_t WordOf(const v1::LabelInput& input);

// Rendezvous hashing (Thaler and Ravishankar 1998): the one of `replicas` whose hash with `word` is the largest, as an
// index. When a replica goes, only its own inputs go to others; everyone who knows the same names chooses the same.
// `replicas` are words for their names (runtime/counter_rng.h), at least one.
size_t Rendezvous(uint64_t word, const std::vector<uint64_t>& replicas);

}  // namespace polystill::soft_labels
