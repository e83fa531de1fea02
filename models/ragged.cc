#include "models/ragged.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "models/row_groups.h"
#include "runtime/cuda/device.h"

namespace polystill::models {
namespace {

int64_t LengthOf(const std::vector<int64_t>& offsets, size_t row) { return offsets[row + 1] - offsets[row]; }

int64_t LongestOf(const std::vector<int64_t>& offsets) {
  int64_t longest = 0;
  for (size_t row = 0; row + 1 < offsets.size(); ++row) longest = std::max(longest, LengthOf(offsets, row));
  return longest;
}

// Row after row by the kernel for the CPU, which needs no padding. By itself the autograd of slices would fill a tensor
// of all rows with zeros for the gradient of each.
class RowByRow : public torch::autograd::Function<RowByRow> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& qkv,
                            const std::vector<int64_t>& offsets) {
    at::Tensor mixed = at::zeros({qkv.size(0), qkv.size(2), qkv.size(3)}, qkv.options());
    // [tokens, heads], of a type of the kernel's choice.
    at::Tensor log_sums;
    for (size_t row = 0; row + 1 < offsets.size(); ++row) {
      if (LengthOf(offsets, row) == 0) continue;
      const auto part = Split(qkv, offsets, row);
      const auto [out, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(part[0], part[1], part[2]);
      if (!log_sums.defined()) log_sums = at::empty({qkv.size(0), qkv.size(2)}, log_sum.options());
      Slice(mixed, offsets, row).copy_(out[0].transpose(0, 1));
      Slice(log_sums, offsets, row).copy_(log_sum[0].transpose(0, 1));
    }
    context->save_for_backward({qkv, mixed, log_sums});
    context->saved_data["offsets"] = offsets;
    return mixed.flatten(1);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor &qkv = saved[0], &mixed = saved[1], &log_sums = saved[2];
    const std::vector<int64_t> offsets = context->saved_data["offsets"].toIntVector();
    const at::Tensor gradient = gradients[0].view_as(mixed);
    at::Tensor of_qkv = at::zeros_like(qkv);
    for (size_t row = 0; row + 1 < offsets.size(); ++row) {
      if (LengthOf(offsets, row) == 0) continue;
      const auto part = Split(qkv, offsets, row);
      const auto heads_first = [&](const at::Tensor& x) { return Slice(x, offsets, row).transpose(0, 1).unsqueeze(0); };
      const auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          heads_first(gradient), part[0], part[1], part[2], heads_first(mixed), heads_first(log_sums).contiguous(),
          /*dropout_p=*/0, /*is_causal=*/false);
      const at::Tensor of_row = Slice(of_qkv, offsets, row);  // [length, 3, heads, head width]
      for (const auto& [place, x] : {std::pair(0, q), std::pair(1, k), std::pair(2, v)}) {
        of_row.select(1, place).copy_(x[0].transpose(0, 1));
      }
    }
    return {of_qkv, at::Tensor()};
  }

 private:
  static at::Tensor Slice(const at::Tensor& x, const std::vector<int64_t>& offsets, size_t row) {
    return x.narrow(0, offsets[row], LengthOf(offsets, row));
  }

  // Queries, keys and values of a row, each [1, heads, length, head width].
  static std::vector<at::Tensor> Split(const at::Tensor& qkv, const std::vector<int64_t>& offsets, size_t row) {
    return Slice(qkv, offsets, row).permute({1, 2, 0, 3}).unsqueeze(1).unbind();
  }
};

}  // namespace

PaddedRows::PaddedRows(const std::vector<int64_t>& offsets, at::Device device)
    : rows_(static_cast<int64_t>(offsets.size()) - 1), length_(LengthBucket(LongestOf(offsets))) {
  const at::Tensor ends = at::tensor(offsets, at::TensorOptions(at::kLong));
  const at::Tensor begins = ends.narrow(0, 0, rows_).unsqueeze(1), lengths = ends.diff().unsqueeze(1);
  const at::Tensor columns = at::arange(length_).unsqueeze(0);
  const at::Tensor there = columns.lt(lengths);
  sources_ = cuda::ToDevice(at::where(there, begins + columns, at::zeros({}, at::kLong)).flatten(), device);
  places_ = cuda::ToDevice(there.flatten().nonzero().flatten(), device);
  // A row without tokens attends to its padding: a softmax over nothing is not finite.
  attended_ = cuda::ToDevice(there.logical_or(lengths.eq(0)).unsqueeze(1).unsqueeze(1), device);
}

at::Tensor PaddedRows::Attention(const at::Tensor& qkv) const {
  if (qkv.size(0) == 0) return qkv.select(1, 0).flatten(1);  // padding has no token to copy
  const int64_t heads = qkv.size(2), width = qkv.size(3);
  const at::Tensor padded =
      qkv.index_select(0, sources_).view({rows_, length_, 3, heads, width}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed = at::scaled_dot_product_attention(padded[0], padded[1], padded[2], attended_);
  const at::Tensor tokens = mixed.transpose(1, 2).reshape({rows_ * length_, heads * width}).index_select(0, places_);
  return at::constant_pad_nd(tokens, {0, 0, 0, qkv.size(0) - tokens.size(0)});
}

RaggedRows::RaggedRows(std::vector<int64_t> offsets, at::Device device)
    : offsets_(std::move(offsets)),
      lengths_(cuda::ToDevice(at::tensor(offsets_, at::TensorOptions(at::kLong)).diff(), device)) {
  if (!device.is_cpu()) padded_.emplace(offsets_, device);
}

at::Tensor RaggedRows::Attention(const at::Tensor& qkv) const {
  return padded_.has_value() ? padded_->Attention(qkv) : RowByRow::apply(qkv, offsets_);
}

at::Tensor RaggedRows::Mean(const at::Tensor& x) const {
  const at::Tensor sums = at::segment_reduce(x.narrow(0, 0, offsets_.back()), "sum", lengths_, /*indices=*/{},
                                             /*offsets=*/{}, /*axis=*/0, /*unsafe=*/true);
  return sums / lengths_.clamp_min(1).unsqueeze(1);
}

at::Tensor RaggedRows::Places(int64_t tokens) const {
  std::vector<int64_t> places(tokens, 0);
  for (size_t row = 0; row + 1 < offsets_.size(); ++row) {
    std::iota(places.begin() + offsets_[row], places.begin() + offsets_[row + 1], 0);
  }
  return at::tensor(places, at::TensorOptions(at::kLong));
}

}  // namespace polystill::models
