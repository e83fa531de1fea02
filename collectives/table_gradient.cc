#include "collectives/table_gradient.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "collectives/c10d_status.h"
#include "runtime/status.h"

namespace polystill::collectives {

TableGradient::TableGradient(at::Tensor table, const Group* group)
    : table_(std::move(table)), group_(group), dense_(at::zeros_like(table_.detach())) {}

// What fails in this process alone is no peer's fault.
template <typename Call>
absl::Status TableGradient::Here(Call call) const {
  const absl::Status status =
      CatchC10d(absl::StrCat(group_->name(), ": gather the rows of a table's gradient"), std::move(call));
  return status.ok() ? status : absl::InternalError(status.message());
}

absl::Status TableGradient::Merge() {
  return Here([&] {
    if (table_.grad().is_sparse()) table_.mutable_grad() = table_.grad().coalesce();
  });
}

absl::Status TableGradient::Reduce() {
  if (!table_.grad().defined()) {
    return absl::InternalError(absl::StrCat(group_->name(), ": the loss does not depend on every parameter"));
  }
  const at::NoGradGuard no_grad;
  at::Tensor mine, values, marks;
  RETURN_IF_ERROR(Here([&] {
    if (table_.grad().is_sparse()) {
      const at::Tensor sparse = table_.grad().coalesce();
      mine = sparse.indices()[0];
      values = sparse.values();
    } else {  // as to_sparse(1) does, which takes milliseconds for hundreds of rows
      mine = table_.grad().ne(0).any(1).nonzero().squeeze(1);
      values = table_.grad().index_select(0, mine);
    }
    marks = at::zeros({table_.size(0)}, values.options().dtype(at::kByte)).index_fill_(0, mine, 1);
  }));
  RETURN_IF_ERROR(group_->AllReduceMax(marks));
  at::Tensor rows, sum;
  RETURN_IF_ERROR(Here([&] {
    rows = marks.nonzero().squeeze(1);
    sum = at::zeros({rows.size(0), table_.size(1)}, values.options());
    sum.index_copy_(0, at::searchsorted(rows, mine), values);
  }));
  RETURN_IF_ERROR(group_->AllReduceSum(sum));
  return Here([&] {
    if (touched_.defined()) dense_.index_fill_(0, touched_, 0);
    dense_.index_copy_(0, rows, sum);
    touched_ = rows;
    table_.mutable_grad() = dense_;
  });
}

}  // namespace polystill::collectives
