#include "coordinator/stragglers.h"

#include <algorithm>
#include <numeric>

namespace polystill::coordinator {
namespace {

// values[i] by the median of the others.
std::vector<double> ByMedianOfOthers(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  const size_t others = values.size() - 1;
  std::vector<double> ratios(values.size());
  for (size_t place = 0; place < order.size(); ++place) {
    const auto other = [&](size_t i) { return values[order[i < place ? i : i + 1]]; };
    const double median = (other((others - 1) / 2) + other(others / 2)) / 2;
    ratios[order[place]] = values[order[place]] / median;
  }
  return ratios;
}

}  // namespace

std::vector<double> RatiosToOthers(const std::vector<Pace>& paces) {
  std::vector<double> of_step, of_record;
  for (const Pace& pace : paces) {
    of_step.push_back(pace.own_seconds);
    of_record.push_back(pace.own_seconds / static_cast<double>(std::max<int64_t>(pace.records, 1)));
  }
  std::vector<double> ratios = ByMedianOfOthers(of_step);
  const std::vector<double> by_record = ByMedianOfOthers(of_record);
  for (size_t i = 0; i < ratios.size(); ++i) ratios[i] = std::min(ratios[i], by_record[i]);
  return ratios;
}

bool Slowness::Look(int64_t step, double ratio, double limit) {
  if (step == step_) return false;
  step_ = step;
  ratio_ = ratio;
  beyond_ = limit > 0 && ratio > limit ? beyond_ + 1 : 0;
  against_ = (ratio > kSlower) == slow_ ? 0 : against_ + 1;
  if (against_ < kLooks) return false;
  against_ = 0;
  slow_ = !slow_;
  return true;
}

}  // namespace polystill::coordinator
