#include "models/row_groups.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include "models/model.h"

namespace polystill::models {
namespace {

constexpr int64_t kTokensOnCpu = 256;
constexpr int64_t kTokensOnGpu = 8192;

// In training a forward more, and its backward, cost about as much as so many tokens.
constexpr int64_t kForwardTokens = 64;

int64_t RoundUp(int64_t number, int64_t step) { return std::max((number + step - 1) / step, int64_t{1}) * step; }

std::vector<int64_t> Places(size_t count) {
  std::vector<int64_t> places(count);
  std::iota(places.begin(), places.end(), 0);
  return places;
}

// Rows of equal keys together, ascending, at most as many as `most` says of the key.
RowGroups GroupByKey(const std::vector<int64_t>& keys, const std::function<int64_t(int64_t key)>& most) {
  std::map<int64_t, std::vector<int64_t>> rows_of;
  for (size_t row = 0; row < keys.size(); ++row) rows_of[keys[row]].push_back(static_cast<int64_t>(row));
  RowGroups groups;
  for (const auto& [key, rows] : rows_of) {
    for (size_t first = 0; first < rows.size(); first += most(key)) {
      const size_t last = std::min(rows.size(), first + most(key));
      groups.emplace_back(rows.begin() + first, rows.begin() + last);
    }
  }
  return groups;
}

// For lengths, ascending, each with its number of rows: where the groups that cost least end.
std::vector<size_t> CheapestEnds(const std::vector<std::pair<int64_t, int64_t>>& lengths) {
  std::vector<int64_t> cost = {0};     // of the first n lengths
  std::vector<size_t> first_of = {0};  // of their last group
  for (size_t n = 1; n <= lengths.size(); ++n) {
    cost.push_back(INT64_MAX);
    first_of.push_back(0);
    int64_t in_group = 0;
    for (size_t first = n; first-- > 0;) {
      in_group += lengths[first].second;
      const int64_t with = cost[first] + in_group * lengths[n - 1].first + kForwardTokens;
      if (with < cost[n]) cost[n] = with, first_of[n] = first;
    }
  }
  std::vector<size_t> ends;
  for (size_t n = lengths.size(); n > 0; n = first_of[n]) ends.push_back(n);
  return ends;
}

}  // namespace

int64_t TokensPerForward(int64_t length, c10::DeviceType device) {
  int64_t tokens = device == c10::kCPU ? kTokensOnCpu : kTokensOnGpu;
  while (tokens < length) tokens *= 2;
  return tokens;
}

int64_t RowsPerForward(int64_t length, c10::DeviceType device) {
  return std::max<int64_t>((device == c10::kCPU ? kTokensOnCpu : kTokensOnGpu) / length, 2);
}

int64_t LengthBucket(int64_t length) {
  int64_t octave = 64;
  while (octave < length) octave *= 2;
  return RoundUp(length, octave / 8);
}

int64_t TrainingLength(int64_t length) { return RoundUp(length, 8); }

RowGroups GroupByRows(const std::vector<int64_t>& lengths, int64_t rows) {
  const std::vector<int64_t> places = Places(lengths.size());
  RowGroups groups;
  for (size_t first = 0; first < places.size(); first += rows) {
    groups.emplace_back(places.begin() + first, places.begin() + std::min<size_t>(places.size(), first + rows));
  }
  return groups;
}

RowGroups GroupByBucket(const std::vector<int64_t>& lengths, c10::DeviceType device) {
  std::vector<int64_t> buckets;
  for (const int64_t length : lengths) buckets.push_back(LengthBucket(length));
  return GroupByKey(buckets, [device](int64_t bucket) { return RowsPerForward(bucket, device); });
}

RowGroups GroupByTokens(const std::vector<int64_t>& lengths, c10::DeviceType device) {
  std::vector<int64_t> longest_first = Places(lengths.size());
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  struct Room {
    int64_t capacity;
    int64_t left;
  };
  RowGroups groups;
  std::vector<Room> rooms;
  size_t open = 0;  // the groups before are full
  for (const int64_t row : longest_first) {
    const int64_t capacity = TokensPerForward(lengths[row], device);
    size_t place = open;
    while (place < groups.size() && (rooms[place].capacity != capacity || rooms[place].left < lengths[row] ||
                                     groups[place].size() == kRowsPerForward)) {
      ++place;
    }
    if (place == groups.size()) {
      groups.emplace_back();
      rooms.push_back({capacity, capacity});
    }
    groups[place].push_back(row);
    rooms[place].left -= lengths[row];
    while (open < groups.size() && (groups[open].size() == kRowsPerForward || rooms[open].left == 0)) ++open;
  }
  return groups;
}

RowGroups GroupByCost(const std::vector<int64_t>& lengths) {
  std::map<int64_t, int64_t> rows_of;  // by length
  for (const int64_t length : lengths) ++rows_of[TrainingLength(length)];
  const std::vector<std::pair<int64_t, int64_t>> counted(rows_of.begin(), rows_of.end());
  std::vector<int64_t> padded;  // ascending
  for (const size_t end : CheapestEnds(counted)) padded.insert(padded.begin(), counted[end - 1].first);
  std::vector<int64_t> keys;
  for (const int64_t length : lengths) {
    keys.push_back(*std::lower_bound(padded.begin(), padded.end(), TrainingLength(length)));
  }
  return GroupByKey(keys, [&lengths](int64_t) { return static_cast<int64_t>(lengths.size()); });
}

}  // namespace polystill::models
