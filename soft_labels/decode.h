#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/array.h"
#include "soft_labels/codec.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {

// How much of an output's answer belongs to one input.
struct RecordSize {
  int64_t rows = 0;
  // As encoded, exactly; of codec sampled, no more.
  int64_t bytes = 0;
  // scores: ids of each row.
  int64_t scores_per_row = 0;
};

// Bytes of a row as encoded, exactly; of codec sampled, at most. `scores_per_row`: ids of a row with scores.
int64_t RowBytes(const v1::LabelSpec& spec, const Output& output, int64_t scores_per_row = 0);

// `spec` and `input` are valid (CheckSpec, teacher_server/validation.h).
RecordSize SizeOf(const v1::LabelSpec& spec, const Output& output, const v1::LabelInput& input);

// Bytes of the answer about one input, of all outputs together; of codec sampled, at most.
int64_t BytesOf(const v1::LabelSpec& spec, const Outputs& outputs, const v1::LabelInput& input);

// Reads an answer by the codec of `spec`, whatever the bytes are: codec, counts, lengths, ids and numbers are checked.
// INVALID_ARGUMENT names the row. `sizes`: of the records it is about.
absl::StatusOr<Array> Decode(const v1::SoftLabels& labels, const v1::LabelSpec& spec, const Output& output,
                             const std::vector<RecordSize>& sizes, const RowName& row_name = {});

// The same of labels whose SoftLabels.dense.data lies in `numbers`, and not in the message.
absl::StatusOr<Array> Decode(const v1::SoftLabels& labels, std::span<const std::string_view> numbers,
                             const v1::LabelSpec& spec, const Output& output, const std::vector<RecordSize>& sizes,
                             const RowName& row_name = {});

// The reverse, for a teacher whose numbers have become what the codec holds.
absl::StatusOr<v1::SoftLabels> Encode(const Array& array, const v1::LabelSpec& spec, const Output& output, int64_t rows,
                                      const RowName& row_name = {});

// An answer about several records, cut into what would be the answers about each of them alone, byte for byte. Nothing
// but lengths is checked; INVALID_ARGUMENT when they are not those of `sizes`.
absl::StatusOr<std::vector<v1::SoftLabels>> Cut(const v1::SoftLabels& labels, const std::vector<RecordSize>& sizes);

// Puts an answer about one record behind one about others; an empty `all` becomes `part`. INVALID_ARGUMENT when they
// are not of one codec and width.
absl::Status Append(const v1::SoftLabels& part, v1::SoftLabels* all);

}  // namespace polystill::soft_labels
