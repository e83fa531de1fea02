#include "benchmarks/rivals/independent_draws.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "runtime/counter_rng.h"

namespace polystill::rivals {
namespace {

constexpr int64_t kClasses = 1;  // the dimension

// Adds a row: the ids of `points`, which ascend, and how often each comes. `ends`: of the ids, cumulative.
void AddRow(const double* ends, int64_t classes, const std::vector<double>& points, soft_labels::Array* drawn) {
  const double* place = ends;
  int32_t before = -1;
  for (const double point : points) {
    place = std::min(std::upper_bound(place, ends + classes, point), ends + classes - 1);
    const auto id = static_cast<int32_t>(place - ends);
    if (id != before) {
      drawn->ids.push_back(id);
      drawn->counts.push_back(0);
      before = id;
    }
    ++drawn->counts.back();
  }
  drawn->offsets.push_back(static_cast<int64_t>(drawn->ids.size()));
}

}  // namespace

IndependentDraws::IndependentDraws(const at::Tensor& logits, double temperature) {
  const at::Tensor z = logits.to(at::kDouble) / temperature;
  const at::Tensor shifted = z - z.amax(kClasses, /*keepdim=*/true);
  const at::Tensor weights = shifted.exp();
  cumulative_ = weights.cumsum(kClasses);
  const at::Tensor total = cumulative_.select(kClasses, cumulative_.size(kClasses) - 1);
  const at::Tensor entropy = (total.log() - (weights * shifted).sum(kClasses) / total).to(at::kFloat).clamp_min(0);
  entropies_.assign(entropy.const_data_ptr<float>(), entropy.const_data_ptr<float>() + entropy.numel());
}

soft_labels::Array IndependentDraws::Draw(int32_t draws, uint64_t seed) const {
  soft_labels::Array drawn;
  drawn.numbers = entropies_;
  drawn.width = 1;
  drawn.offsets.push_back(0);
  const int64_t classes = cumulative_.size(kClasses);
  std::vector<double> points(draws);
  for (int64_t row = 0; row < cumulative_.size(0); ++row) {
    const double* ends = cumulative_.const_data_ptr<double>() + row * classes;
    const uint64_t key = CombineKey(seed, row);
    for (int32_t i = 0; i < draws; ++i) points[i] = UniformOpen(key, i) * ends[classes - 1];
    std::sort(points.begin(), points.end());
    AddRow(ends, classes, points, &drawn);
  }
  return drawn;
}

}  // namespace polystill::rivals
