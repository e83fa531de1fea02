#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "evaluation/metrics.h"
#include "evaluation/tally.h"

namespace polystill::evaluation {

struct Interval {
  double low = 0;
  double high = 0;
};

// An interval for each of kMetrics, in its order.
using MetricIntervals = std::array<Interval, kMetrics.size()>;

struct Intervals {
  // Language -> one a model, for languages that have records with a gold label.
  std::map<std::string, std::vector<MetricIntervals>> languages;
  // Of the mean over languages, one a model.
  std::vector<MetricIntervals> mean;
  // Of the mean of model `reference` minus that of each model.
  std::vector<MetricIntervals> differences;
};

// 95% percentile intervals of a cluster bootstrap (Efron and Tibshirani 1993, "An introduction to the bootstrap",
// chapters 8 and 13; Field and Welsh 2007, "Bootstrapping clustered data",
// https://doi.org/10.1111/j.1467-9868.2007.00593.x). A resample draws as many groups as there are, with replacement,
// each with its records of every language: texts of one group in several languages go wrong together, so that languages
// drawn apart would make the mean look surer than it is. All models are judged on the same resamples, so differences
// are paired. A language of which a resample has no record is left out of that resample's mean. Draws are a pure
// function of (seed, resample, draw), groups counted in the order of the rows.
//
// `reference` is a model's index, `resamples` at least 1. Takes time in proportion to resamples times the tally's
// cells, and memory for every resample's metrics. CANCELLED within a resample of `stop`.
absl::StatusOr<Intervals> Bootstrap(const Tally& tally, int reference, int resamples, uint64_t seed,
                                    const std::stop_token& stop = {});

}  // namespace polystill::evaluation
