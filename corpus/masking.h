#pragma once

#include <cstdint>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::corpus {

// A row of token ids some of which have to be found again.
struct MaskedRow {
  std::vector<int32_t> ids;
  // Places in ids that are judged, ascending; none in an empty row, at least one in any other.
  std::vector<int32_t> positions;
  // The ids that stood there.
  std::vector<int32_t> targets;
};

// Hides tokens as Devlin et al. 2019 (arXiv:1810.04805, section 3.1) do: a row of n tokens has share * n judged ones,
// rounded up or down such that the mean over rows is right; each of them gives way to `mask_id`, or to a random id
// (with probability `random`), or stays (`keep`). A pure function of its arguments: whoever knows the key hides the
// same tokens. `masking`: share in (0, 1), random + keep at most 1; `vocab_size` at least 1.
MaskedRow MaskTokens(const std::vector<int32_t>& ids, const v1::Masking& masking, int32_t mask_id, int32_t vocab_size,
                     uint64_t key);

// Judged tokens of a row of `tokens`, at most.
int64_t MostMasked(const v1::Masking& masking, int64_t tokens);

}  // namespace polystill::corpus
