#pragma once

#include <cstdint>
#include <string_view>

namespace polystill {

// A counter-based generator: every draw is a pure function of a key and a counter, so that any process computes the
// same numbers in any order. Mixing is SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom
// number generators") over the key words. Not for cryptography.
constexpr uint64_t Mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A key made of words, e.g. CombineKey(seed, language, pass).
template <typename... Words>
constexpr uint64_t CombineKey(Words... words) {
  uint64_t key = 0;
  ((key = Mix64(key ^ Mix64(static_cast<uint64_t>(words)))), ...);
  return key;
}

// A word for a name, for use in a key (FNV-1a).
constexpr uint64_t NameWord(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

// Uniform in (0, 1), never 0 and never 1.
constexpr double UniformOpen(uint64_t key, uint64_t counter) {
  return (static_cast<double>(CombineKey(key, counter) >> 12) + 0.5) * 0x1p-52;
}

}  // namespace polystill
