#include "models/ragged.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"

namespace polystill::models {
namespace {

constexpr int64_t kHeads = 3;
constexpr int64_t kHeadWidth = 5;

// Row by row with plain operations: softmax(q k^T / sqrt(head width)) v.
at::Tensor PlainAttention(const at::Tensor& qkv, const std::vector<int64_t>& offsets) {
  std::vector<at::Tensor> rows;
  for (size_t row = 0; row + 1 < offsets.size(); ++row) {
    const at::Tensor x = qkv.slice(0, offsets[row], offsets[row + 1]).permute({1, 2, 0, 3});
    const at::Tensor weights = (x[0].matmul(x[1].transpose(-1, -2)) / std::sqrt(kHeadWidth)).softmax(-1);
    rows.push_back(weights.matmul(x[2]).transpose(0, 1).flatten(1));
  }
  rows.push_back(at::zeros({qkv.size(0) - offsets.back(), kHeads * kHeadWidth}, qkv.options()));
  return at::cat(rows);
}

// `attention`: of qkv [tokens, 3, heads, head width] and offsets.
template <typename Attention>
void ExpectTheFormula(const Attention& attention) {
  at::manual_seed(1);
  const std::vector<int64_t> cases[] = {{0, 4}, {0, 1, 1, 9, 40}, {0, 0}, {0}, {0, 100, 130}};
  for (const std::vector<int64_t>& offsets : cases) {
    for (const int64_t filler : {0, 6}) {
      SCOPED_TRACE(absl::StrCat(offsets.size() - 1, " rows of ", offsets.back(), " tokens, filler ", filler));
      const at::Tensor qkv =
          at::randn({offsets.back() + filler, 3, kHeads, kHeadWidth}, at::kDouble).requires_grad_(true);
      const at::Tensor probe = at::randn({offsets.back() + filler, kHeads * kHeadWidth}, at::kDouble);
      const at::Tensor expected = PlainAttention(qkv, offsets);
      if (expected.requires_grad()) (expected * probe).sum().backward();
      const at::Tensor expected_gradient = qkv.grad().defined() ? qkv.grad().clone() : at::zeros_like(qkv);
      qkv.mutable_grad().reset();
      const at::Tensor given = attention(qkv, offsets);
      EXPECT_TRUE(at::allclose(given, expected, 0, 1e-12));
      (given * probe).sum().backward();
      EXPECT_TRUE(at::allclose(qkv.grad(), expected_gradient, 0, 1e-12));
    }
  }
}

TEST(RaggedTest, AttentionAndItsGradientAreTheFormula) {
  ExpectTheFormula([](const at::Tensor& qkv, const std::vector<int64_t>& offsets) {
    return RaggedRows(offsets, at::kCPU).Attention(qkv);
  });
}

// What a GPU does; all of it runs on a CPU too.
TEST(RaggedTest, PaddedAttentionAndItsGradientAreTheFormula) {
  ExpectTheFormula([](const at::Tensor& qkv, const std::vector<int64_t>& offsets) {
    return PaddedRows(offsets, at::kCPU).Attention(qkv);
  });
}

TEST(RaggedTest, MeansAndPlaces) {
  const at::Tensor x = at::arange(12, at::kDouble).view({6, 2}).requires_grad_(true);
  const RaggedRows rows({0, 2, 2, 5}, at::kCPU);
  const at::Tensor mean = rows.Mean(x);
  EXPECT_TRUE(at::equal(mean, at::tensor({1.0, 2.0, 0.0, 0.0, 6.0, 7.0}, at::kDouble).view({3, 2})));
  mean.sum().backward();
  const at::Tensor each = at::tensor({1 / 2., 1 / 2., 1 / 3., 1 / 3., 1 / 3., 0.}, at::kDouble);
  EXPECT_TRUE(at::allclose(x.grad(), each.unsqueeze(1).expand({6, 2})));
  EXPECT_TRUE(at::equal(rows.Places(7), at::tensor({0, 1, 0, 1, 2, 0, 0}, at::kLong)));
}

}  // namespace
}  // namespace polystill::models
