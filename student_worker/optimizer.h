#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/run.pb.h"

namespace polystill::student_worker {

// AdamW, Adam or SGD over named parameters (float32 or float64), with a learning-rate schedule and clipping by the
// global norm. On every rank the gradients, and so every step, are the same. Not thread-safe.
class Optimizer {
 public:
  using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

  // `steps`: length of the job, for the schedule.
  Optimizer(v1::Optimizer spec, int64_t steps, NamedTensors parameters);

  // Applies the parameters' gradients, which may be scaled in place. FAILED_PRECONDITION when their norm is not finite:
  // then nothing has been applied.
  absl::Status Step();

  // Steps applied so far.
  int64_t step() const { return step_; }

  // What a checkpoint must hold beside the parameters, e.g. "exp_avg.embedding.weight". Views, not copies.
  NamedTensors State() const;

  // Goes on from where an optimiser of the same job was after `step` steps, when its State() was `state`.
  // INVALID_ARGUMENT names the tensor that is missing, surplus or of another shape; nothing is changed then.
  absl::Status Restore(int64_t step, const NamedTensors& state);

 private:
  // Factor that the gradients are to be multiplied by: 1, or what brings their norm down to clip_norm.
  absl::Status ComputeClipFactor(const std::vector<at::Tensor>& gradients, double* factor) const;

  const v1::Optimizer spec_;
  const int64_t steps_;
  int64_t step_ = 0;
  std::vector<std::string> names_;
  std::vector<at::Tensor> parameters_;
  // Adam: first and second moments. SGD with momentum: its buffer is first_.
  std::vector<at::Tensor> first_;
  std::vector<at::Tensor> second_;
  // Adam: the count of steps as the kernel takes it, float32 scalars; one tensor, shared by all parameters.
  std::vector<at::Tensor> counts_;
};

}  // namespace polystill::student_worker
