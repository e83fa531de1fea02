#include "models/probabilities.h"

namespace polystill::models {

at::Tensor LabelLogits(v1::Task task, const at::Tensor& logits) {
  return task == v1::TASK_BINARY ? at::cat({at::zeros_like(logits), logits}, 1) : logits;
}

at::Tensor Probabilities(v1::Task task, const at::Tensor& logits) {
  return task == v1::TASK_MULTI_LABEL ? at::sigmoid(logits) : at::softmax(LabelLogits(task, logits), 1);
}

}  // namespace polystill::models
