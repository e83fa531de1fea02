#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "polystill/v1/run.pb.h"
#include "soft_labels/codec.h"

namespace polystill::student_worker {

// A kind of label that a job needs: an output of a teacher, by a codec with its settings.
struct LabelKind {
  std::string teacher;
  soft_labels::CodecSettings codec;
  // "logits", or the name of a feature.
  std::string output;

  auto operator<=>(const LabelKind&) const = default;
};

// What rows of a batch belong to.
enum class RowsOf {
  kRecords,  // one for each record
  kTokens,   // one for each token of the records
  kJudged,   // one for each row of logits: a record's, or those of the tokens at `positions`, or of every token
};

// Labels of one kind, record after record, as their codec holds them (soft_labels/array.h).
struct Labels {
  RowsOf rows = RowsOf::kRecords;
  // Numbers of a row.
  int64_t width = 0;
  std::vector<float> numbers;
  std::vector<int32_t> ids = {};
  std::vector<int32_t> counts = {};
  std::vector<int64_t> offsets = {};
};

// This rank's slice of one step; it may be empty. Lists are of one entry a record unless said otherwise.
struct Batch {
  int64_t step = 0;
  // Position of the slice's first record in the global batch.
  int64_t first_position = 0;
  std::vector<std::string> ids;
  // How often each record has come before.
  std::vector<int64_t> passes;
  // Token ids of the side that the model reads.
  std::vector<std::vector<int32_t>> tokens;
  // Whether the model judges tokens and not records: then `positions` are those that are judged, as places among the
  // record's tokens, ascending; empty as a whole: every token.
  bool judges_tokens = false;
  std::vector<std::vector<int32_t>> positions;
  // Gold classes, one for each judged row, -1 without one; task multi_label: 0 or 1 for each label of each row, nothing
  // when labels are not read.
  std::vector<int64_t> gold;
  // What teachers said.
  std::map<LabelKind, Labels> labels;
  // Language -> records.
  std::map<std::string, int64_t> languages;
  // Records that were labelled by a teacher, counted once for each teacher and codec, and the payload bytes in which
  // the labels came.
  int64_t label_count = 0;
  int64_t label_bytes = 0;

  // Rows of records [first, last).
  int64_t CountRows(RowsOf rows, int64_t first, int64_t last) const;
  int64_t CountRows(RowsOf rows) const { return CountRows(rows, 0, static_cast<int64_t>(ids.size())); }
};

}  // namespace polystill::student_worker
