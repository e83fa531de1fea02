#include "teacher_server/label_maths.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/counter_rng.h"

namespace polystill::teacher_server {
namespace {

using soft_labels::Array;

// Logits of any look, the same in every run.
at::Tensor Logits(int64_t rows, int64_t classes, double scale = 3) {
  const at::Tensor place = at::arange(static_cast<double>(rows * classes), at::kDouble);
  return ((place * 12.9898).sin() * 43758.5453).frac().mul(2 * scale).view({rows, classes}).to(at::kFloat);
}

std::vector<double> Uniforms(int64_t rows, uint64_t key = 3) {
  std::vector<double> uniforms;
  for (int64_t row = 0; row < rows; ++row) uniforms.push_back(UniformOpen(key, row));
  return uniforms;
}

std::vector<double> Softmax(const at::Tensor& row, double temperature) {
  const at::Tensor p = at::softmax(row.to(at::kDouble) / temperature, 0);
  return {p.const_data_ptr<double>(), p.const_data_ptr<double>() + p.numel()};
}

TEST(LabelMathsTest, TopKIsTheLikeliestAndTheRest) {
  const at::Tensor logits = Logits(5, 40);
  const Array top = TopKOf(logits, 2, 6);
  for (int64_t row = 0; row < 5; ++row) {
    const std::vector<double> p = Softmax(logits[row], 2);
    std::vector<int32_t> order(40);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
    std::sort(order.begin(), order.begin() + 6);
    EXPECT_EQ(std::vector<int32_t>(top.ids.begin() + 6 * row, top.ids.begin() + 6 * row + 6),
              std::vector<int32_t>(order.begin(), order.begin() + 6));
    double rest = 1;
    for (int i = 0; i < 6; ++i) {
      EXPECT_NEAR(top.numbers[7 * row + i], std::log(p[order[i]]), 1e-6);
      rest -= p[order[i]];
    }
    EXPECT_NEAR(top.numbers[7 * row + 6], std::log(rest), 1e-6);
  }
}

// 1 - P is 0 in any floating type here; what the others share is e^-1000 each.
TEST(LabelMathsTest, TheRestOfAPeakedRowIsKept) {
  at::Tensor logits = at::zeros({1, 50});
  logits[0][7] = 1000;
  EXPECT_NEAR(TopKOf(logits, 1, 1).numbers[1], std::log(49.0) - 1000, 1e-4);
  logits[0][7] = 3e38f;
  EXPECT_EQ(TopKOf(logits, 0.5, 1).numbers[1], std::numeric_limits<float>::lowest());
  EXPECT_EQ(TopKOf(logits, 1, 50).numbers[50], -std::numeric_limits<float>::infinity());
}

TEST(LabelMathsTest, SystematicCountsAreTheExpectedOnesRoundedUpOrDown) {
  for (const double temperature : {0.5, 1.0, 8.0}) {
    const at::Tensor logits = Logits(9, 300);
    const Array drawn = SampledOf(logits, temperature, 64, Uniforms(9));
    for (int64_t row = 0; row < 9; ++row) {
      const std::vector<double> p = Softmax(logits[row], temperature);
      std::vector<double> counts(300, 0);
      for (int64_t i = drawn.offsets[row]; i < drawn.offsets[row + 1]; ++i) counts[drawn.ids[i]] = drawn.counts[i];
      double entropy = 0;
      for (int id = 0; id < 300; ++id) {
        EXPECT_LT(std::abs(counts[id] - 64 * p[id]), 1);
        entropy -= p[id] * std::log(p[id]);
      }
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 64);
      EXPECT_NEAR(drawn.numbers[row], entropy, 1e-6);
    }
  }
}

// By the definition, one u_i after the other.
TEST(LabelMathsTest, SystematicDrawsAreThoseOfTheirDefinition) {
  const at::Tensor logits = Logits(1, 20);
  const std::vector<double> p = Softmax(logits[0], 1), uniforms = Uniforms(1);
  std::vector<int> expected(20, 0);
  for (int i = 0; i < 100; ++i) {
    double end = p[0];
    int id = 0;
    while (end <= (uniforms[0] + i) / 100 && id < 19) end += p[++id];
    ++expected[id];
  }
  const Array drawn = SampledOf(logits, 1, 100, uniforms);
  std::vector<int> counts(20, 0);
  for (size_t i = 0; i < drawn.ids.size(); ++i) counts[drawn.ids[i]] = drawn.counts[i];
  EXPECT_EQ(counts, expected);
}

TEST(LabelMathsTest, PeakedAndEqualRows) {
  at::Tensor logits = at::zeros({2, 1000});
  logits[0][999] = 1e30;
  const Array drawn = SampledOf(logits, 1, 7, Uniforms(2));
  EXPECT_EQ(drawn.offsets, (std::vector<int64_t>{0, 1, 8}));
  EXPECT_EQ(drawn.ids[0], 999);
  EXPECT_EQ(drawn.counts[0], 7);
  EXPECT_EQ(drawn.numbers[0], 0);
  EXPECT_NEAR(drawn.numbers[1], std::log(1000.0), 1e-6);
  EXPECT_EQ(SampledOf(at::zeros({3, 1}), 1, 7, Uniforms(3)).counts, (std::vector<int32_t>{7, 7, 7}));
  EXPECT_TRUE(SampledOf(at::zeros({0, 5}), 1, 7, {}).ids.empty());
  EXPECT_TRUE(TopKOf(at::zeros({0, 5}), 1, 2).ids.empty());
}

TEST(LabelMathsTest, ScoresAndClasses) {
  const at::Tensor logits = Logits(3, 30);
  const Array scores = ScoresOf(logits, 2, {4, 29, 0, 0}, {0, 2, 2, 4});
  EXPECT_EQ(scores.offsets, (std::vector<int64_t>{0, 2, 2, 4}));
  EXPECT_NEAR(scores.numbers[0], std::log(Softmax(logits[0], 2)[4]), 1e-6);
  EXPECT_NEAR(scores.numbers[3], std::log(Softmax(logits[2], 2)[0]), 1e-6);
  EXPECT_EQ(ClassesOf(at::tensor({1.0f, 3.0f, 3.0f, 2.0f}).view({1, 4})).ids, std::vector<int32_t>{1});
  EXPECT_TRUE(ClassesOf(at::zeros({0, 4})).ids.empty());
}

// What a record is answered does not depend on what came with it, nor on the threads: rows alone, all together, by one
// thread and by two, and in chunks (of a large vocabulary) have the same bits.
TEST(LabelMathsTest, RowsDoNotDependOnTheOthers) {
  const int threads = at::get_num_threads();
  for (const int64_t classes : {10, 1'003, 40'001, 300'007}) {
    const at::Tensor logits = Logits(7, classes);
    const std::vector<double> uniforms = Uniforms(7);
    const int64_t k = std::min<int64_t>(classes, 33);
    at::set_num_threads(1);
    const Array top = TopKOf(logits, 2, k), drawn = SampledOf(logits, 2, 64, uniforms);
    at::set_num_threads(2);
    Array top_alone, drawn_alone;
    for (int64_t row = 6; row >= 0; --row) {
      Array one = TopKOf(logits.narrow(0, row, 1), 2, k),
            draw = SampledOf(logits.narrow(0, row, 1), 2, 64, {uniforms[row]});
      soft_labels::Append(std::move(top_alone), &one);
      soft_labels::Append(std::move(drawn_alone), &draw);
      top_alone = std::move(one), drawn_alone = std::move(draw);
    }
    EXPECT_EQ(top_alone.numbers, top.numbers) << classes;
    EXPECT_EQ(top_alone.ids, top.ids);
    EXPECT_EQ(drawn_alone.numbers, drawn.numbers);
    EXPECT_EQ(drawn_alone.ids, drawn.ids);
    EXPECT_EQ(drawn_alone.counts, drawn.counts);
    EXPECT_EQ(drawn_alone.offsets, drawn.offsets);
    const Array together = TopKOf(logits, 2, k);
    EXPECT_EQ(together.numbers, top.numbers);
    EXPECT_EQ(SampledOf(logits, 2, 64, uniforms).counts, drawn.counts);
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace polystill::teacher_server
