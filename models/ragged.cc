#include "models/ragged.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

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

// All rows at once, padded.
at::Tensor PaddedAttention(const at::Tensor& qkv, const std::vector<int64_t>& offsets) {
  const auto rows = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t length = LengthBucket(LongestOf(offsets)), heads = qkv.size(2), width = qkv.size(3);
  const at::Tensor ends = at::tensor(offsets, at::TensorOptions(at::kLong));
  const at::Tensor begins = ends.narrow(0, 0, rows).unsqueeze(1), lengths = ends.diff().unsqueeze(1);
  const at::Tensor places = at::arange(length).unsqueeze(0);
  const at::Tensor there = places.lt(lengths);
  const at::Tensor from = cuda::ToDevice(at::where(there, begins + places, at::zeros({}, at::kLong)), qkv.device());
  const at::Tensor back = cuda::ToDevice(there.flatten().nonzero().flatten(), qkv.device());
  // A row without tokens attends to its padding: a softmax over nothing is not finite.
  const at::Tensor attended = cuda::ToDevice(there.logical_or(lengths.eq(0)).unsqueeze(1).unsqueeze(1), qkv.device());
  const at::Tensor padded =
      qkv.index_select(0, from.flatten()).view({rows, length, 3, heads, width}).permute({2, 0, 3, 1, 4});
  const at::Tensor mixed = at::scaled_dot_product_attention(padded[0], padded[1], padded[2], attended);
  const at::Tensor tokens = mixed.transpose(1, 2).reshape({rows * length, heads * width}).index_select(0, back);
  return at::constant_pad_nd(tokens, {0, 0, 0, qkv.size(0) - tokens.size(0)});
}

}  // namespace

at::Tensor RaggedAttention(const at::Tensor& qkv, const std::vector<int64_t>& offsets) {
  return qkv.is_cpu() ? RowByRow::apply(qkv, offsets) : PaddedAttention(qkv, offsets);
}

at::Tensor RaggedMean(const at::Tensor& x, const std::vector<int64_t>& offsets) {
  const at::Tensor lengths = at::tensor(offsets, at::TensorOptions(at::kLong)).diff();
  const at::Tensor counts = cuda::ToDevice(lengths.clamp_min(1).unsqueeze(1), x.device());
  const at::Tensor sums = at::segment_reduce(x.narrow(0, 0, offsets.back()), "sum", cuda::ToDevice(lengths, x.device()),
                                             /*indices=*/{}, /*offsets=*/{}, /*axis=*/0, /*unsafe=*/true);
  return sums / counts;
}

at::Tensor PlacesInRows(const std::vector<int64_t>& offsets, int64_t tokens) {
  std::vector<int64_t> places(tokens, 0);
  for (size_t row = 0; row + 1 < offsets.size(); ++row) {
    std::iota(places.begin() + offsets[row], places.begin() + offsets[row + 1], 0);
  }
  return at::tensor(places, at::TensorOptions(at::kLong));
}

}  // namespace polystill::models
