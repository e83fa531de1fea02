#pragma once

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "collectives/group.h"

namespace polystill::collectives {

// The gradient of a lookup table [rows, width], of which a step touches few rows: only rows that some rank touched are
// summed over the ranks (Horovod's sparse gradients go the same way, but gather every rank's rows: Sergeev and Del
// Balso 2018, arXiv:1802.05799, section 4), so that what travels never exceeds the dense gradient and a byte a row.
//
//   sparse rows --coalesce--> rows touched here --maximum over ranks--> rows touched --sum over ranks--> dense gradient
//
// Not thread-safe.
class TableGradient {
 public:
  // `table`: a leaf whose backward may give sparse gradients over its first dimension. `group` outlives this. May throw
  // c10::Error.
  TableGradient(at::Tensor table, const Group* group);

  // Before a step's first backward.
  void Clear() { table_.mutable_grad().reset(); }
  // After each backward but the last: what lies in a row several times is added up. INTERNAL: no memory.
  absl::Status Merge();
  // A collective. Takes the table's grad(), sparse or dense; on OK grad() is dense, the sum over the ranks, and valid
  // until the next call. ABORTED: a peer; INTERNAL: there is no gradient, or no memory.
  absl::Status Reduce();

 private:
  template <typename Call>
  absl::Status Here(Call call) const;

  const at::Tensor table_;
  const Group* const group_;
  at::Tensor dense_;    // [rows, width], zeros but in the rows of the last step
  at::Tensor touched_;  // [n] int64, those rows; undefined at first
};

}  // namespace polystill::collectives
