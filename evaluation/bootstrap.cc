#include "evaluation/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/counter_rng.h"

namespace polystill::evaluation {
namespace {

constexpr double kLow = 0.025;
constexpr double kHigh = 0.975;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// A metric's value in every resample; NaN where there was nothing to judge.
using Samples = std::vector<double>;
using MetricSamples = std::array<Samples, kMetrics.size()>;

// Quantile of sorted values, linear between them: numpy's default.
double Quantile(const Samples& sorted, double level) {
  const double place = level * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Interval IntervalOf(Samples samples) {
  std::erase_if(samples, [](double value) { return std::isnan(value); });
  if (samples.empty()) return {kNaN, kNaN};
  std::sort(samples.begin(), samples.end());
  return {Quantile(samples, kLow), Quantile(samples, kHigh)};
}

MetricIntervals IntervalsOf(const MetricSamples& samples) {
  MetricIntervals intervals;
  std::transform(samples.begin(), samples.end(), intervals.begin(), IntervalOf);
  return intervals;
}

MetricSamples Difference(const MetricSamples& a, const MetricSamples& b) {
  MetricSamples difference = a;
  for (size_t metric = 0; metric < kMetrics.size(); ++metric) {
    for (size_t i = 0; i < a[metric].size(); ++i) difference[metric][i] -= b[metric][i];
  }
  return difference;
}

MetricSamples Empty(int resamples) {
  MetricSamples samples;
  samples.fill(Samples(resamples, kNaN));
  return samples;
}

// How often each group is in a resample.
std::vector<int64_t> DrawGroups(int groups, uint64_t seed, int resample) {
  std::vector<int64_t> times(groups);
  const uint64_t key = CombineKey(seed, NameWord("bootstrap"), resample);
  for (int draw = 0; draw < groups; ++draw) ++times[static_cast<size_t>(UniformOpen(key, draw) * groups)];
  return times;
}

void Judge(const std::vector<Tally::Cell>& cells, Confusion confusion, const std::vector<int64_t>& times, int resample,
           MetricSamples* samples) {
  for (const Tally::Cell& cell : cells) {
    const int64_t n = times[cell.group];
    if (n > 0)
      confusion.Add(cell.gold, cell.predicted, n * cell.records, n * cell.hits, static_cast<double>(n) * cell.loss);
  }
  for (size_t metric = 0; metric < kMetrics.size(); ++metric) {
    (*samples)[metric][resample] = confusion.Value(kMetrics[metric]);
  }
}

// Over the languages that a resample has records of.
MetricSamples Mean(const std::vector<const MetricSamples*>& languages, int resamples) {
  MetricSamples mean = Empty(resamples);
  for (size_t metric = 0; metric < kMetrics.size(); ++metric) {
    for (int resample = 0; resample < resamples; ++resample) {
      double sum = 0;
      int there = 0;
      for (const MetricSamples* language : languages) {
        const double value = (*language)[metric][resample];
        if (std::isnan(value)) continue;
        sum += value;
        ++there;
      }
      if (there > 0) mean[metric][resample] = sum / there;
    }
  }
  return mean;
}

}  // namespace

absl::StatusOr<Intervals> Bootstrap(const Tally& tally, int reference, int resamples, uint64_t seed,
                                    const std::stop_token& stop) {
  const auto cells = tally.Cells();
  std::map<std::pair<std::string, int>, MetricSamples> samples;
  for (const auto& [place, some] : cells) samples[place] = Empty(resamples);
  for (int resample = 0; resample < resamples; ++resample) {
    if (stop.stop_requested()) return absl::CancelledError("stopped between two resamples of the intervals");
    const std::vector<int64_t> times = DrawGroups(tally.groups(), seed, resample);
    for (const auto& [place, some] : cells) Judge(some, tally.Empty(), times, resample, &samples[place]);
  }
  Intervals intervals;
  std::vector<std::vector<const MetricSamples*>> by_model(tally.models());
  for (const auto& [place, values] : samples) {
    const auto& [language, model] = place;  // sorted by both
    intervals.languages[language].push_back(IntervalsOf(values));
    by_model[model].push_back(&values);
  }
  std::vector<MetricSamples> means;
  for (const auto& languages : by_model) means.push_back(Mean(languages, resamples));
  for (const MetricSamples& mean : means) {
    intervals.mean.push_back(IntervalsOf(mean));
    intervals.differences.push_back(IntervalsOf(Difference(means.at(reference), mean)));
  }
  return intervals;
}

}  // namespace polystill::evaluation
