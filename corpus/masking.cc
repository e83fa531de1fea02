#include "corpus/masking.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/counter_rng.h"

namespace polystill::corpus {
namespace {

constexpr uint64_t kCountWord = NameWord("how many tokens are masked");
constexpr uint64_t kOrderWord = NameWord("which tokens are masked");
constexpr uint64_t kFateWord = NameWord("what takes their place");
constexpr uint64_t kIdWord = NameWord("a random id");

// Places that are judged: those whose numbers are least, so that each token has the same chance.
std::vector<int32_t> Choose(size_t tokens, double share, uint64_t key) {
  if (tokens == 0) return {};
  const double expected = share * static_cast<double>(tokens);
  const auto drawn = static_cast<size_t>(expected + UniformOpen(key, kCountWord));
  const size_t count = std::clamp<size_t>(drawn, 1, tokens);
  std::vector<int32_t> places(tokens);
  std::iota(places.begin(), places.end(), 0);
  std::sort(places.begin(), places.end(), [key](int32_t a, int32_t b) {
    const uint64_t of_a = CombineKey(key, kOrderWord, a), of_b = CombineKey(key, kOrderWord, b);
    return of_a != of_b ? of_a < of_b : a < b;
  });
  places.resize(count);
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace

int64_t MostMasked(const v1::Masking& masking, int64_t tokens) {
  return std::clamp<int64_t>(std::ceil(masking.share() * static_cast<double>(tokens)), 1, tokens);
}

MaskedRow MaskTokens(const std::vector<int32_t>& ids, const v1::Masking& masking, int32_t mask_id, int32_t vocab_size,
                     uint64_t key) {
  MaskedRow row = {ids, Choose(ids.size(), masking.share(), key), {}};
  for (const int32_t place : row.positions) {
    row.targets.push_back(ids[place]);
    const double fate = UniformOpen(CombineKey(key, kFateWord), place);
    if (fate < masking.keep()) continue;
    const bool random = fate < masking.keep() + masking.random();
    row.ids[place] = random ? static_cast<int32_t>(CombineKey(key, kIdWord, place) % vocab_size) : mask_id;
  }
  return row;
}

}  // namespace polystill::corpus
