#include "corpus/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"

namespace polystill::corpus {
namespace {

using Wide = unsigned __int128;

constexpr int64_t kCyclePositions = 65'536;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Weights are whole numbers of 65,536ths: from there on all is exact, so that two machines whose pow() differ in the
// last bit agree.
constexpr double kScale = 1 << 16;
// Leaves room for the sum over the languages.
constexpr double kMaxWeight = 0x1p54;

using Weights = std::vector<int64_t>;

int64_t ToWeight(double value) { return std::max<int64_t>(1, std::llround(std::min(value * kScale, kMaxWeight))); }

absl::StatusOr<Weights> TemperatureWeights(double tau, const v1::CorpusIndex& index) {
  if (!(tau >= 1.0)) {
    return absl::InvalidArgumentError(absl::StrCat("mixture.tau is ", tau, "; it must be at least 1"));
  }
  Weights weights;
  for (const auto& language : index.languages()) weights.push_back(ToWeight(std::pow(language.records(), 1.0 / tau)));
  return weights;
}

// What max_epochs passes over each language are.
Weights Caps(const v1::Mixture& mixture, const v1::CorpusIndex& index) {
  Weights caps;
  for (const auto& language : index.languages()) {
    caps.push_back(ToWeight(mixture.max_epochs() * static_cast<double>(language.records())));
  }
  return caps;
}

absl::StatusOr<Weights> UniMaxWeights(const v1::PlanSegment& segment, const v1::CorpusIndex& index) {
  if (segment.budget() < 1) {
    return absl::InvalidArgumentError(absl::StrCat("the plan's budget is ", segment.budget(), "; unimax needs one"));
  }
  Weights weights = Caps(segment.mixture(), index);
  std::vector<size_t> ascending(weights.size());
  std::iota(ascending.begin(), ascending.end(), 0);
  std::stable_sort(ascending.begin(), ascending.end(), [&](size_t a, size_t b) { return weights[a] < weights[b]; });
  int64_t left = ToWeight(static_cast<double>(segment.budget()));
  auto languages = static_cast<int64_t>(weights.size());
  for (const size_t language : ascending) {
    weights[language] = std::clamp<int64_t>(left / languages--, 1, weights[language]);
    left -= weights[language];
  }
  return weights;
}

// In any unit: the greatest becomes 2^30.
absl::StatusOr<Weights> GivenWeights(const v1::Mixture& mixture, const v1::CorpusIndex& index) {
  double greatest = 0;
  for (const auto& [name, weight] : mixture.weights()) greatest = std::max(greatest, weight);
  Weights weights;
  for (const auto& language : index.languages()) {
    const auto given = mixture.weights().find(language.name());
    if (given == mixture.weights().end()) {
      return absl::InvalidArgumentError(absl::StrCat("mixture.weights does not name ", language.name(), ", which has ",
                                                     language.records(), " records; write a weight for it"));
    }
    if (!(given->second > 0) || !std::isfinite(given->second)) {
      return absl::InvalidArgumentError(absl::StrCat("mixture.weights.", language.name(), " is not above 0"));
    }
    weights.push_back(ToWeight(given->second / greatest * (1 << 14)));
  }
  if (mixture.weights_size() == index.languages_size()) return weights;
  for (const auto& [name, weight] : mixture.weights()) {
    const bool known = std::any_of(index.languages().begin(), index.languages().end(),
                                   [&name = name](const auto& language) { return language.name() == name; });
    if (!known) return absl::InvalidArgumentError(absl::StrCat("mixture.weights.", name, ": no record is of it"));
  }
  return weights;
}

absl::StatusOr<Weights> MakeWeights(const v1::PlanSegment& segment, const v1::CorpusIndex& index) {
  switch (segment.mixture().kind()) {
    case v1::Mixture::KIND_TEMPERATURE:
      return TemperatureWeights(segment.mixture().tau(), index);
    case v1::Mixture::KIND_UNIMAX:
      return UniMaxWeights(segment, index);
    case v1::Mixture::KIND_WEIGHTS:
      return GivenWeights(segment.mixture(), index);
    default:
      Weights records;
      for (const auto& language : index.languages()) records.push_back(language.records());
      return records;
  }
}

}  // namespace

int64_t MostRecords(const v1::Mixture& mixture, const v1::CorpusIndex& index) {
  if (mixture.kind() != v1::Mixture::KIND_UNIMAX) return INT64_MAX;
  const Weights caps = Caps(mixture, index);
  return std::max<int64_t>(1, std::accumulate(caps.begin(), caps.end(), int64_t{0}) / static_cast<int64_t>(kScale));
}

absl::StatusOr<Quotas> MakeQuotas(const v1::PlanSegment& segment, const v1::CorpusIndex& index) {
  ASSIGN_OR_RETURN(const Weights weights, MakeWeights(segment, index));
  const int64_t batch_size = segment.batch_size();
  const int64_t total = std::accumulate(weights.begin(), weights.end(), int64_t{0});
  const int64_t smallest = *std::min_element(weights.begin(), weights.end());

  Quotas quotas;
  quotas.steps = CeilDivide(std::max(kCyclePositions, CeilDivide(total, smallest)), batch_size);
  const int64_t positions = quotas.steps * batch_size;
  std::vector<int64_t> remainders;
  int64_t left = positions;
  for (const int64_t weight : weights) {
    const Wide share = static_cast<Wide>(positions) * weight;
    quotas.positions.push_back(static_cast<int64_t>(share / total));
    remainders.push_back(static_cast<int64_t>(share % total));
    left -= quotas.positions.back();
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return remainders[a] > remainders[b]; });
  for (int64_t i = 0; i < left; ++i) ++quotas.positions[order[i]];
  return quotas;
}

}  // namespace polystill::corpus
