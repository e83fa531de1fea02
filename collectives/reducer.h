#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "collectives/group.h"

namespace polystill::collectives {

// Backward passes whose gradients are summed over the ranks, bucket by bucket, while later ones are still computed. The
// one file that knows c10d::Reducer, whose constructor changes between releases.
//
// Buckets follow the reverse order of the parameters (the order in which gradients become ready): 1 MiB, then 25 MiB
// each; the layout never changes, since with three ranks or more Gloo's rounding depends on the place in a bucket.
// Gradients are views into the buckets, valid until the next step. Not thread-safe.
class Reducer {
 public:
  // A collective. `parameters`: leaves that require gradients, in the same order on every rank; `tables`: more of them,
  // whose gradients are sparse (collectives/table_gradient.h). `group` outlives this.
  static absl::StatusOr<std::unique_ptr<Reducer>> Create(const std::vector<at::Tensor>& parameters,
                                                         const std::vector<at::Tensor>& tables, const Group* group);
  ~Reducer();

  // The backward of a part of this rank's loss: its gradients are added to those of the Backward that ends the step.
  // No collective: ranks may call it as often as their slices need, or never. Errors as of Backward.
  absl::Status Accumulate(const at::Tensor& loss);

  // A collective. Every rank calls it once a step, with a `loss` (a scalar) that depends on every parameter, even if by
  // zeros alone. On OK each parameter's grad() is the sum over the ranks, not the mean, and every bucket was reduced
  // whole. On an error (ABORTED: a peer; INTERNAL: a parameter without a gradient, or this rank's own backward pass)
  // the gradients must not be applied, and this object and the group are of no use any more.
  absl::Status Backward(const at::Tensor& loss);

  int buckets() const;

 private:
  struct State;
  explicit Reducer(std::unique_ptr<State> state);
  void ClearGradients();
  std::unique_ptr<State> state_;
};

}  // namespace polystill::collectives
