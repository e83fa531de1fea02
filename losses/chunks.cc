#include "losses/chunks.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

namespace polystill::losses {
namespace {

// An argument of a Function may not be undefined.
at::Tensor NoTensor(const at::Tensor& like) { return at::empty({0}, like.options()); }

// A value whose gradients with respect to some inputs are known already; NoTensor: has none.
class Known : public torch::autograd::Function<Known> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& value, const at::Tensor& rows,
                            const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& of_rows,
                            const at::Tensor& of_weight, const at::Tensor& of_bias) {
    (void)rows, (void)weight, (void)bias;
    context->save_for_backward({of_rows, of_weight, of_bias});
    return value.clone();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list of_value) {
    torch::autograd::variable_list gradients(7);
    const torch::autograd::variable_list known = context->get_saved_variables();
    for (size_t i = 0; i < known.size(); ++i) {
      if (known[i].numel() > 0) gradients[1 + i] = known[i] * of_value[0];
    }
    return gradients;
  }
};

// A leaf of a graph of its own with the same numbers; undefined stays undefined.
at::Tensor Leaf(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.detach().set_requires_grad(tensor.requires_grad()) : tensor;
}

}  // namespace

at::Tensor LogitRows::Chunk(int64_t first, int64_t count) const {
  const at::Tensor some = count == rows.size(0) ? rows : rows.narrow(0, first, count);
  return head.weight.defined() ? at::linear(some, head.weight, head.bias) : some;
}

at::Tensor SumOverRows(const LogitRows& logits, const RowLoss& loss) {
  const int64_t rows = logits.rows.size(0), most = RowsOfChunk(std::max<int64_t>(1, logits.classes()));
  if (rows <= most) return loss(logits.Chunk(0, rows), 0, rows);
  const Head head{Leaf(logits.head.weight), Leaf(logits.head.bias)};
  const bool learns = at::GradMode::is_enabled() &&
                      (logits.rows.requires_grad() || (head.weight.defined() && head.weight.requires_grad()));
  at::Tensor value, of_rows;
  if (learns && logits.rows.requires_grad()) of_rows = at::empty_like(logits.rows, at::MemoryFormat::Contiguous);
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    const LogitRows some{Leaf(logits.rows.narrow(0, first, count)), head};
    const at::Tensor part = loss(some.Chunk(0, count), first, count);
    if (learns && part.requires_grad()) part.backward();
    if (of_rows.defined()) {
      const at::Tensor& gradient = some.rows.grad();
      at::Tensor place = of_rows.narrow(0, first, count);
      gradient.defined() ? place.copy_(gradient) : place.zero_();
    }
    value = value.defined() ? value + part.detach() : part.detach();
  }
  if (!learns) return value;
  const auto given = [&](const at::Tensor& tensor) { return tensor.defined() ? tensor : NoTensor(value); };
  const auto gradient = [&](const at::Tensor& leaf) { return given(leaf.defined() ? leaf.grad() : at::Tensor()); };
  return Known::apply(value, logits.rows, given(logits.head.weight), given(logits.head.bias), given(of_rows),
                      gradient(head.weight), gradient(head.bias));
}

}  // namespace polystill::losses
