#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/outputs.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::soft_labels {

using models::kLogits;

// One of a teacher's outputs: which rows its answer has.
struct Output {
  std::string name;
  // Numbers of a row.
  int64_t width = 0;
  // A row for each token, and not for each record. Of logits: for those at LabelInput.positions, if any are named.
  bool of_tokens = false;
  // Of logits: how many numbers the layer reads that makes them; 0 when the teacher does not give it away.
  int64_t head_width = 0;

  // Rows of the answer for one input.
  int64_t RowsOf(const v1::LabelInput& input) const {
    if (!of_tokens) return 1;
    if (name == kLogits && !input.positions().empty()) return input.positions_size();
    return input.ids().ids_size();
  }
};
using Outputs = std::vector<Output>;

// What a loss learns from: the names of the outputs of its teacher, each once; none for the task loss.
std::vector<std::string> TeacherOutputsOf(const v1::Loss& loss);

// The outputs that `spec` names, or the logits when it names none. INVALID_ARGUMENT: one that the teacher does not have
// (the message says what it has), or is named twice.
absl::StatusOr<Outputs> OutputsOf(const v1::LabelSpec& spec, const v1::DescribeReply& teacher);

// Numbers that the model gives for one input, of all outputs together; logits whatever becomes of them.
int64_t NumbersOf(const Outputs& outputs, const v1::LabelInput& input);

// Whether a spec, whose outputs these are, asks for what its codec can hold. INVALID_ARGUMENT names the field.
absl::Status CheckSpec(const v1::LabelSpec& spec, const Outputs& outputs, v1::Task task);

// OK when an answer of `bytes` fits into `most`; else INVALID_ARGUMENT with the remedy.
absl::Status CheckAnswerBytes(int64_t bytes, int64_t most);

// What a row of an output is called in errors, e.g. "record 'a', hidden.2, row 5"; `inputs` is a list of LabelInput.
template <typename Inputs>
std::string NameOfRow(const Output& output, const Inputs& inputs, int64_t row) {
  for (const v1::LabelInput& input : inputs) {
    const int64_t rows = output.RowsOf(input);
    if (row < rows) {
      return absl::StrCat("record '", input.id(), "', ", output.name,
                          output.of_tokens ? absl::StrCat(", row ", row) : "");
    }
    row -= rows;
  }
  return absl::StrCat(output.name, ", a row beyond the last");
}

}  // namespace polystill::soft_labels
