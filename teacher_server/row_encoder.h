#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/outputs.h"

namespace polystill::teacher_server {

// One output of a request's records, encoded by its codec: what the codec holds is computed where the numbers are
// (label_maths.h), and draws follow from the label's key (soft_labels/label_key.h). A valid request, with its codec
// set. `numbers`: float32 [rows, width] of its records, of codec hidden_head what the head reads. INTERNAL when one is
// not finite or ATen fails, OUT_OF_RANGE when one does not fit the codec: the message names the record.
absl::StatusOr<v1::SoftLabels> EncodeRows(const v1::DescribeReply& teacher, const v1::LabelRequest& request,
                                          const soft_labels::Output& output, const at::Tensor& numbers);

}  // namespace polystill::teacher_server
