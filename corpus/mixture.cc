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

// Weights as whole numbers: from there on all is exact, so that two machines whose pow() differ in the last bit agree.
absl::StatusOr<std::vector<int64_t>> Weights(const v1::Mixture& mixture, const std::vector<int64_t>& records) {
  if (mixture.kind() != v1::Mixture::KIND_TEMPERATURE) return records;
  if (!(mixture.tau() >= 1.0)) {
    return absl::InvalidArgumentError(absl::StrCat("mixture.tau is ", mixture.tau(), "; it must be at least 1"));
  }
  constexpr double kScale = 1 << 16;
  std::vector<int64_t> weights;
  weights.reserve(records.size());
  for (const int64_t n : records) weights.push_back(std::llround(std::pow(n, 1.0 / mixture.tau()) * kScale));
  return weights;
}

}  // namespace

absl::StatusOr<Quotas> MakeQuotas(const v1::Mixture& mixture, const std::vector<int64_t>& records, int64_t batch_size) {
  ASSIGN_OR_RETURN(const std::vector<int64_t> weights, Weights(mixture, records));
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
