#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// How often each language is drawn, exactly, over a cycle of steps.
struct Quotas {
  // Steps of a cycle, of batch_size positions each.
  int64_t steps = 0;
  // Positions of the cycle that each language gets; at least 1. They add up to steps * batch_size.
  std::vector<int64_t> positions;
};

// The share of each language of the index, by segment.mixture:
//
//   proportional   its records
//   temperature    its records to the power 1/tau
//   unimax         as even as max_epochs passes over each language allow: going from the smallest to the largest, each
//                  gets an equal part of what is left of segment.budget, at most max_epochs times its records (Chung et
//                  al. 2023, "UniMax", arXiv:2304.09151, algorithm 1)
//   weights        what mixture.weights says
//
// Rounded by largest remainder, ties to the first. A cycle has at least 65,536 positions, and as many as it takes for
// every language to get one. INVALID_ARGUMENT for tau below 1, a budget below 1, and weights that are not above 0 or
// name other languages than the index.
absl::StatusOr<Quotas> MakeQuotas(const v1::PlanSegment& segment, const v1::CorpusIndex& index);

// The records that a mixture can give at most: with unimax max_epochs passes over each language, else no end.
int64_t MostRecords(const v1::Mixture& mixture, const v1::CorpusIndex& index);

}  // namespace polystill::corpus
