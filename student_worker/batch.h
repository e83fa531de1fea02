#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "polystill/v1/run.pb.h"

namespace polystill::student_worker {

// A kind of soft label that a job needs: of a teacher, by a codec.
struct LabelKind {
  std::string teacher;
  v1::Codec codec = v1::CODEC_UNSPECIFIED;

  auto operator<=>(const LabelKind&) const = default;
};

// This rank's slice of one step: record i has row i of everything. It may be empty.
struct Batch {
  int64_t step = 0;
  // Position of the slice's first record in the global batch.
  int64_t first_position = 0;
  std::vector<std::string> ids;
  // Token ids of the side that the model reads.
  std::vector<std::vector<int32_t>> tokens;
  // Gold classes; -1 without one.
  std::vector<int64_t> gold;
  // The teachers' logits, row-major [records, classes].
  std::map<LabelKind, std::vector<float>> labels;
  // Language -> records.
  std::map<std::string, int64_t> languages;
  // Soft labels in `labels`, and the payload bytes in which they came.
  int64_t label_count = 0;
  int64_t label_bytes = 0;
};

}  // namespace polystill::student_worker
