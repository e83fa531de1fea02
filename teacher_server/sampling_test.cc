#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "losses/losses.h"
#include "losses/packed_losses.h"
#include "runtime/counter_rng.h"
#include "soft_labels/label_key.h"
#include "soft_labels/sampled.h"
#include "teacher_server/label_maths.h"

// What sampled labels are worth: their loss and its gradient have the right expectation, and err less than independent
// draws of as many bytes. Every seed is fixed.

namespace polystill::teacher_server {
namespace {

using soft_labels::Array;

constexpr int64_t kClasses = 500;
constexpr int32_t kDraws = 64;
constexpr int kTrials = 10'000;

at::Tensor Logits(double phase, double scale) {
  const at::Tensor place = at::arange(static_cast<double>(kClasses), at::kDouble);
  return ((place * 12.9898 + phase).sin() * 43758.5453).frac().mul(scale).view({1, kClasses}).to(at::kFloat);
}

// U of one record's draws number 0 to kTrials - 1, as a teacher derives them.
std::vector<double> UniformsOfDraws(double temperature) {
  v1::DescribeReply teacher;
  teacher.set_digest("a teacher");
  v1::LabelSpec spec;
  spec.set_codec(v1::CODEC_SAMPLED);
  spec.set_temperature(temperature);
  spec.set_draws(kDraws);
  spec.set_seed(11);
  const soft_labels::LabelKeys keys(teacher, spec, {"logits", kClasses, false});
  v1::LabelInput input;
  input.set_text("a record");
  std::vector<double> uniforms;
  for (int draw = 0; draw < kTrials; ++draw) {
    input.set_draw(draw);
    uniforms.push_back(UniformOpen(soft_labels::KeyWord(keys.KeyOf(input)), 0));
  }
  return uniforms;
}

// Independent draws from p by inversion: the rival.
Array MultinomialOf(const std::vector<double>& p, int32_t draws, int trials) {
  std::vector<double> cumulative(p.size());
  std::partial_sum(p.begin(), p.end(), cumulative.begin());
  std::mt19937_64 random(7);
  Array drawn{std::vector<float>(trials, 1.0f), 1, {}, {}, {0}};
  for (int trial = 0; trial < trials; ++trial) {
    std::map<int32_t, int32_t> counts;
    for (int32_t i = 0; i < draws; ++i) {
      const double u = static_cast<double>(random() >> 11) * 0x1p-53 * cumulative.back();
      ++counts[static_cast<int32_t>(std::upper_bound(cumulative.begin(), cumulative.end(), u) - cumulative.begin())];
    }
    for (const auto& [id, count] : counts) drawn.ids.push_back(id), drawn.counts.push_back(count);
    drawn.offsets.push_back(static_cast<int64_t>(drawn.ids.size()));
  }
  return drawn;
}

// [trials, classes] of c / N.
at::Tensor Frequencies(const Array& drawn, int32_t draws) {
  const auto trials = static_cast<int64_t>(drawn.offsets.size()) - 1;
  at::Tensor frequencies = at::zeros({trials, kClasses}, at::kDouble);
  double* to = frequencies.data_ptr<double>();
  for (int64_t trial = 0; trial < trials; ++trial) {
    for (int64_t i = drawn.offsets[trial]; i < drawn.offsets[trial + 1]; ++i) {
      to[trial * kClasses + drawn.ids[i]] = static_cast<double>(drawn.counts[i]) / draws;
    }
  }
  return frequencies;
}

double BytesARow(const Array& drawn, int32_t draws) {
  const auto rows = static_cast<int64_t>(drawn.offsets.size()) - 1;
  return static_cast<double>(soft_labels::EncodeSampled(drawn, rows, draws, kClasses)->packed().size()) / rows;
}

// Mean over the trials of the squared distance from p.
double ErrorOf(const at::Tensor& frequencies, const at::Tensor& p) {
  return (frequencies - p).square().sum(1).mean().item<double>();
}

class SamplingTest : public testing::TestWithParam<double> {};

TEST_P(SamplingTest, ValueAndGradientAreUnbiased) {
  const double temperature = GetParam();
  const at::Tensor teacher = Logits(0.3, 6), student = Logits(1.1, 5).to(at::kDouble);
  const std::vector<double> uniforms = UniformsOfDraws(temperature);
  const Array drawn = SampledOf(teacher.expand({kTrials, kClasses}), temperature, kDraws, uniforms);

  // The gradients of the loss itself, of some hundred trials, are T (q - c / N); all trials are then judged by that.
  const at::Tensor frequencies = Frequencies(drawn, kDraws);
  const at::Tensor q = at::softmax(student / temperature, 1);
  constexpr int64_t kRows = 100;
  const at::Tensor rows = student.expand({kRows, kClasses}).clone().set_requires_grad(true);
  std::vector<int64_t> row_of, ids, counts;
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t i = drawn.offsets[row]; i < drawn.offsets[row + 1]; ++i) {
      row_of.push_back(row), ids.push_back(drawn.ids[i]), counts.push_back(drawn.counts[i]);
    }
  }
  const at::Tensor entropies = at::full({kRows}, drawn.numbers[0], at::kDouble);
  losses::SampledSoftLabel(rows, at::tensor(row_of), at::tensor(ids), at::tensor(counts).to(at::kDouble), entropies,
                           kDraws, temperature)
      .backward();
  EXPECT_TRUE(at::allclose(rows.grad(), temperature * (q - frequencies.narrow(0, 0, kRows)), 1e-9, 1e-12));

  const at::Tensor p = at::softmax(teacher.to(at::kDouble) / temperature, 1);
  const at::Tensor gradients = temperature * (q - frequencies), truth = temperature * (q - p);
  const at::Tensor bias = gradients.mean(0, true) - truth;
  const double standard_error = std::sqrt(gradients.var(0).sum().item<double>() / kTrials);
  EXPECT_LE(bias.norm().item<double>(), 3 * standard_error);
  // Along the gradient, where a bias would do harm, and of the value.
  const at::Tensor along = (gradients * truth).sum(1) - truth.square().sum();
  EXPECT_LE(std::abs(along.mean().item<double>()), 3 * along.std().item<double>() / std::sqrt(kTrials));
  const at::Tensor values = -temperature * temperature *
                            ((frequencies * at::log_softmax(student / temperature, 1)).sum(1) + drawn.numbers[0]);
  const double value = losses::SoftLabel(student, teacher.to(at::kDouble), temperature).item<double>();
  EXPECT_LE(std::abs(values.mean().item<double>() - value),
            3 * values.std().item<double>() / std::sqrt(kTrials) + 1e-6 * temperature * temperature);
}

// At every entropy: peaked, usual, flat. What N independent draws err by falls as 1 / N, their bytes grow with N.
TEST_P(SamplingTest, ErrsNoMoreThanIndependentDrawsOfAsManyBytes) {
  const double temperature = GetParam();
  for (const double scale : {1.0, 6.0, 25.0, 80.0}) {
    const at::Tensor teacher = Logits(0.3, scale);
    const at::Tensor p = at::softmax(teacher.to(at::kDouble) / temperature, 1);
    const Array systematic =
        SampledOf(teacher.expand({kTrials, kClasses}), temperature, kDraws, UniformsOfDraws(temperature));
    const std::vector<double> list(p.const_data_ptr<double>(), p.const_data_ptr<double>() + kClasses);
    constexpr int kRivals = 2'000;
    const Array rival = MultinomialOf(list, kDraws, kRivals), more = MultinomialOf(list, kDraws + 16, kRivals);
    const double bytes = BytesARow(systematic, kDraws), rival_bytes = BytesARow(rival, kDraws);
    const double bytes_a_draw = std::max(1e-3, (BytesARow(more, kDraws + 16) - rival_bytes) / 16);
    const double rival_draws = kDraws + std::max(0.0, bytes - rival_bytes) / bytes_a_draw;
    const double error = ErrorOf(Frequencies(systematic, kDraws), p);
    const double rival_error = ErrorOf(Frequencies(rival, kDraws), p) * kDraws / rival_draws;
    EXPECT_LE(std::sqrt(error), 1.02 * std::sqrt(rival_error) + 1e-12)
        << "scale " << scale << ": " << bytes << " bytes against " << rival_bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Temperatures, SamplingTest, testing::Values(1.0, 2.0, 8.0),
                         [](const auto& info) { return "T" + std::to_string(static_cast<int>(info.param)); });

}  // namespace
}  // namespace polystill::teacher_server
