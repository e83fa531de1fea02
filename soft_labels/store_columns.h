#pragma once

#include <arrow/type_fwd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/soft_label.pb.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {

// The columns of a label store: `id` and `language`, string, and for each output NAME ('.' becomes '_'), by codec:
//
//   dense_fp32  NAME                    list<float>   its rows, one after the other
//   classes     NAME_class              int32, of tokens list<int32>
//   top_k       NAME_ids                list<int32>   k a row, ascending
//               NAME_log_probabilities  list<float>   of these
//               NAME_log_rest           list<float>   one a row: the log of what all other ids share
//   sampled     NAME_code, and          binary        the bytes of FORMAT.md
//               NAME_row_bytes          list<int32>   bytes of each row in it
//   others      NAME_code               binary        the bytes of FORMAT.md
//
// All of them are exact: what is read is what the teacher sent.
std::shared_ptr<arrow::Schema> StoreSchema(const v1::LabelSpec& spec, const Outputs& outputs);

// Names of the columns of one output.
std::vector<std::string> ColumnNames(const v1::LabelSpec& spec, const Output& output);

// One record's labels, of each output as it would be answered alone.
struct LabelledRecord {
  std::string id;
  std::string language;
  std::vector<v1::SoftLabels> labels;

  // Encoded.
  int64_t bytes() const;
};

// INVALID_ARGUMENT names the record whose labels are not as encoded by `spec`.
absl::StatusOr<std::shared_ptr<arrow::Table>> StoreTable(const std::vector<LabelledRecord>& records,
                                                         const v1::LabelSpec& spec, const Outputs& outputs);

// The labels of an output in a row of a table of one chunk, whose columns are StoreSchema's, or some of them.
// DATA_LOSS when columns or values are not of that form.
absl::StatusOr<v1::SoftLabels> LabelsAt(const arrow::Table& table, int64_t row, const v1::LabelSpec& spec,
                                        const Output& output);

}  // namespace polystill::soft_labels
