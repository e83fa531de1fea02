#include "losses/chunks.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "losses/losses.h"

namespace polystill::losses {
namespace {

at::Tensor Waves(at::IntArrayRef sizes, double step) {
  int64_t numbers = 1;
  for (const int64_t size : sizes) numbers *= size;
  return (at::arange(static_cast<double>(numbers), at::kDouble) * step).sin().reshape(sizes);
}

TEST(ChunksTest, RowsOfAChunk) {
  EXPECT_EQ(RowsOfChunk(1), kChunkNumbers);
  EXPECT_EQ(RowsOfChunk(30'000), 69);
  EXPECT_EQ(RowsOfChunk(250'000), kLeastRows);
  EXPECT_EQ(RowsOfChunk(int64_t{1} << 24), 1);
}

// The classes are so many that three rows of chunks are needed; everything that learns gets the gradient that it gets
// without chunks, scaled by what comes after.
TEST(ChunksTest, ChunksGiveTheLossAndGradientsOfTheWhole) {
  const int64_t classes = 50'000, rows = 2 * RowsOfChunk(classes) + 3, width = 3;
  const at::Tensor teacher = Waves({rows, classes}, 0.37) * 3;
  const RowLoss loss = [&](const at::Tensor& s, int64_t first, int64_t count) {
    return SoftLabel(s, teacher.narrow(0, first, count), 2);
  };
  const at::Tensor rows_of_head = Waves({rows, width}, 1.3).set_requires_grad(true);
  const Head head{Waves({classes, width}, 0.7).set_requires_grad(true), Waves({classes}, 0.9).set_requires_grad(true)};
  const at::Tensor whole = loss(at::linear(rows_of_head, head.weight, head.bias), 0, rows) * 0.25;
  whole.backward();
  const std::vector<at::Tensor> inputs = {rows_of_head, head.weight, head.bias};
  std::vector<at::Tensor> expected;
  for (const at::Tensor& input : inputs) {
    expected.push_back(input.grad().clone());
    input.mutable_grad().reset();
  }
  const at::Tensor in_chunks = SumOverRows({rows_of_head, head}, loss) * 0.25;
  EXPECT_NEAR(in_chunks.item<double>(), whole.item<double>(), 1e-9 * std::abs(whole.item<double>()));
  in_chunks.backward();
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_TRUE(at::allclose(inputs[i].grad(), expected[i], 1e-9, 1e-9)) << i;

  const at::Tensor logits = at::linear(rows_of_head, head.weight, head.bias).detach().set_requires_grad(true);
  const at::Tensor of_logits = SumOverRows({logits}, loss);
  of_logits.backward();
  const at::Tensor p = at::softmax(teacher / 2, 1), q = at::softmax(logits.detach() / 2, 1);
  EXPECT_TRUE(at::allclose(logits.grad(), 2 * (q - p), 1e-9, 1e-12));
  const at::NoGradGuard no_grad;
  EXPECT_EQ(SumOverRows({logits}, loss).item<double>(), of_logits.item<double>());
}

TEST(ChunksTest, NoRowsAreOneChunk) {
  const at::Tensor logits = at::zeros({0, 5}).set_requires_grad(true);
  const at::Tensor sum = SumOverRows({logits}, [](const at::Tensor& s, int64_t, int64_t) { return s.sum(); });
  sum.backward();
  EXPECT_EQ(sum.item<double>(), 0);
}

}  // namespace
}  // namespace polystill::losses
