#pragma once

#include <ATen/ATen.h>

#include "polystill/v1/run.pb.h"

namespace polystill::models {

// A task's logits as one for each label: [rows, labels] from what a model gives. With task binary the first label's is
// 0 and the second's the model's own, so that a softmax over both is the logit's sigmoid.
at::Tensor LabelLogits(v1::Task task, const at::Tensor& logits);

// Probabilities [rows, labels] at temperature 1: softmax over the labels, or with task multi_label each label's
// sigmoid.
at::Tensor Probabilities(v1::Task task, const at::Tensor& logits);

}  // namespace polystill::models
