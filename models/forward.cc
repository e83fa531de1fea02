#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

#include "models/model.h"
#include "runtime/cuda/device.h"

namespace polystill::models {
namespace {

constexpr int32_t kFillerId = 0;

// In training a forward more, and its backward, cost about as much as so many tokens.
constexpr int64_t kForwardTokens = 64;

// What a row's length is rounded up to in training: few lengths, that kernels like.
int64_t TrainingLength(int64_t length) { return std::max<int64_t>((length + 7) / 8 * 8, 8); }

at::Tensor CopyOf(const std::vector<int64_t>& values) { return at::tensor(values, at::TensorOptions(at::kLong)); }

// Rows [first, last), filled up, with what is wanted of them. A filler row's token is no position that anybody wants.
TokenBatch BatchOf(const Model& model, const Rows& rows, size_t first, size_t last, size_t fill_to,
                   const Wanted& wanted) {
  TokenBatch batch = MakeBatch(rows, first, last, fill_to);
  batch.features = wanted.features;
  batch.head_input = wanted.head_input;
  if (!model.judges_tokens() || (wanted.positions.empty() && last - first == fill_to)) return batch;
  std::vector<int64_t> positions;
  int64_t offset = 0;
  for (size_t row = first; row < last; ++row) {
    const auto length = static_cast<int64_t>(rows[row].size());
    if (wanted.positions.empty()) {
      for (int64_t place = 0; place < length; ++place) positions.push_back(offset + place);
    } else {
      for (const int32_t place : wanted.positions[row]) {
        TORCH_CHECK(place >= 0 && place < length, "position ", place, " of a row of ", length, " tokens");
        positions.push_back(offset + place);
      }
    }
    offset += length;
  }
  batch.positions = CopyOf(positions);
  return batch;
}

int64_t CountTokens(const Rows& rows, size_t first, size_t last) {
  int64_t tokens = 0;
  for (size_t row = first; row < last; ++row) tokens += static_cast<int64_t>(rows[row].size());
  return tokens;
}

// Without the filler rows, which are the last; logits of tokens have none.
Outputs WithoutFiller(const Model& model, const Rows& rows, size_t first, size_t last, Outputs outputs) {
  const auto count = static_cast<int64_t>(last - first);
  if (!model.judges_tokens() && outputs.logits.defined()) outputs.logits = outputs.logits.narrow(0, 0, count);
  for (auto& [name, feature] : outputs.features) {
    feature = feature.narrow(0, 0, IsOfTokens(name) ? CountTokens(rows, first, last) : count);
  }
  return outputs;
}

Outputs Concatenate(std::vector<Outputs> parts) {
  if (parts.size() == 1) return std::move(parts[0]);
  Outputs all;
  const auto join = [&parts](const auto& member) {
    std::vector<at::Tensor> tensors;
    for (const Outputs& part : parts) tensors.push_back(member(part));
    return at::cat(tensors);
  };
  if (parts[0].logits.defined()) all.logits = join([](const Outputs& part) { return part.logits; });
  for (const auto& [name, unused] : parts[0].features) {
    all.features[name] = join([&name = name](const Outputs& part) { return part.features.at(name); });
  }
  return all;
}

// Forward after forward of kRowsPerForward rows.
Outputs ForwardInChunks(const Model& model, const Rows& rows, const Wanted& wanted) {
  std::vector<Outputs> parts;
  size_t first = 0;
  do {
    const size_t last = std::min(rows.size(), first + kRowsPerForward);
    const TokenBatch batch = BatchOf(model, rows, first, last, kRowsPerForward, wanted);
    parts.push_back(WithoutFiller(model, rows, first, last, model.Forward(batch)));
    first = last;
  } while (first < rows.size());
  return Concatenate(std::move(parts));
}

// `pieces` holds counts[order[0]] entries of row order[0], then those of row order[1] and so on: puts them in the order
// of the rows.
at::Tensor InRowOrder(const at::Tensor& pieces, const std::vector<int64_t>& order, const std::vector<int64_t>& counts) {
  std::vector<int64_t> starts(counts.size());
  int64_t start = 0;
  for (const int64_t row : order) {
    starts[row] = start;
    start += counts[row];
  }
  std::vector<int64_t> places;
  for (size_t row = 0; row < counts.size(); ++row) {
    for (int64_t i = 0; i < counts[row]; ++i) places.push_back(starts[row] + i);
  }
  return pieces.index_select(0, cuda::ToDevice(CopyOf(places), pieces.device()));
}

std::vector<int64_t> SizesOf(const Rows& rows) {
  std::vector<int64_t> sizes;
  for (const auto& row : rows) sizes.push_back(static_cast<int64_t>(row.size()));
  return sizes;
}

// What a forward of some of the rows gives; `places` says which.
using ForwardSome = std::function<Outputs(const Rows& some, const std::vector<int64_t>& places, const Wanted& wanted)>;

// Longest rows of the forwards that rows go through: length -> length that it is padded to.
using PaddedLengths = std::map<int64_t, int64_t>;

// Padded to the bucket of each.
PaddedLengths BucketsOf(const Rows& rows) {
  PaddedLengths padded;
  for (const auto& row : rows) {
    const auto length = static_cast<int64_t>(row.size());
    padded[length] = LengthBucket(length);
  }
  return padded;
}

// Sorted by length and cut into groups, each padded to its longest, such that the tokens and kForwardTokens for each
// group are fewest.
PaddedLengths LeastPadding(const Rows& rows) {
  std::map<int64_t, int64_t> rows_of;  // by length
  for (const auto& row : rows) ++rows_of[TrainingLength(static_cast<int64_t>(row.size()))];
  const std::vector<std::pair<int64_t, int64_t>> lengths(rows_of.begin(), rows_of.end());
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
  std::map<int64_t, int64_t> group_of;  // by TrainingLength
  for (size_t n = lengths.size(); n > 0; n = first_of[n]) {
    for (size_t i = first_of[n]; i < n; ++i) group_of[lengths[i].first] = lengths[n - 1].first;
  }
  PaddedLengths padded;
  for (const auto& row : rows) {
    const auto length = static_cast<int64_t>(row.size());
    padded[length] = group_of.at(TrainingLength(length));
  }
  return padded;
}

// Rows that are padded to one length go through `forward` together; the outputs come back in the order of `rows`.
Outputs ForwardByLength(const Model& model, const Rows& rows, const Wanted& wanted, const PaddedLengths& padded,
                        const ForwardSome& forward) {
  std::vector<int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t row) { return padded.at(static_cast<int64_t>(rows[row].size())); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) < length(b); });
  std::vector<Outputs> parts;
  for (size_t first = 0; first < order.size();) {
    Rows some;
    Wanted wanted_of_some = wanted;
    wanted_of_some.positions.clear();
    std::vector<int64_t> places;
    while (first < order.size() && (places.empty() || length(order[first]) == length(places[0]))) {
      places.push_back(order[first++]);
      some.push_back(rows[places.back()]);
      if (!wanted.positions.empty()) wanted_of_some.positions.push_back(wanted.positions[places.back()]);
    }
    parts.push_back(forward(some, places, wanted_of_some));
  }
  Outputs outputs = Concatenate(std::move(parts));
  const std::vector<int64_t> one_each(rows.size(), 1);
  const std::vector<int64_t> tokens = SizesOf(rows);
  const std::vector<int64_t> judged = wanted.positions.empty() ? tokens : SizesOf(wanted.positions);
  if (outputs.logits.defined()) {
    outputs.logits = InRowOrder(outputs.logits, order, model.judges_tokens() ? judged : one_each);
  }
  for (auto& [name, feature] : outputs.features) {
    feature = InRowOrder(feature, order, IsOfTokens(name) ? tokens : one_each);
  }
  return outputs;
}

void CheckWanted(const Rows& rows, const Wanted& wanted) {
  TORCH_CHECK(wanted.positions.empty() || wanted.positions.size() == rows.size(), rows.size(),
              " rows with positions of ", wanted.positions.size());
}

}  // namespace

TokenBatch MakeBatch(const Rows& rows, size_t first, size_t last, size_t fill_to) {
  std::vector<int64_t> ids;
  std::vector<int64_t> offsets = {0};
  for (size_t row = first; row < last; ++row) {
    ids.insert(ids.end(), rows[row].begin(), rows[row].end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  while (offsets.size() - 1 < fill_to) {
    ids.push_back(kFillerId);
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  return {CopyOf(ids), CopyOf(offsets)};
}

PaddedBatch PadToBucket(const TokenBatch& batch, int64_t max_length) {
  PaddedBatch padded;
  padded.lengths = batch.offsets.diff();
  const int64_t longest = padded.lengths.max().item<int64_t>();
  TORCH_CHECK(longest <= max_length, "a row has ", longest, " ids, max_length is ", max_length);
  const bool training = !batch.row_keys.empty();
  const int64_t length = std::min(training ? TrainingLength(longest) : LengthBucket(longest), max_length);
  padded.mask = at::arange(length).unsqueeze(0).lt(padded.lengths.unsqueeze(1));
  padded.ids = at::zeros({padded.lengths.size(0), length}, at::kLong).masked_scatter(padded.mask, batch.ids);
  return padded;
}

at::Tensor TokensOf(const at::Tensor& padded, const PaddedBatch& batch) {
  const at::Tensor places = batch.mask.flatten().nonzero().flatten();
  return padded.flatten(0, 1).index_select(0, cuda::ToDevice(places, padded.device()));
}

Outputs FixedShapeForward(const Model& model, const Rows& rows, const Wanted& wanted) {
  CheckWanted(rows, wanted);
  const auto in_chunks = [&](const Rows& some, const auto&, const Wanted& wanted_of_some) {
    return ForwardInChunks(model, some, wanted_of_some);
  };
  const bool by_bucket = !rows.empty() && model.pads_to_length();
  Outputs outputs = by_bucket ? ForwardByLength(model, rows, wanted, BucketsOf(rows), in_chunks)
                              : ForwardInChunks(model, rows, wanted);
  if (wanted.on_device) return outputs;
  outputs.logits = cuda::ToHost(outputs.logits);
  for (auto& [name, feature] : outputs.features) feature = cuda::ToHost(feature);
  return outputs;
}

Outputs TrainingForward(const Model& model, const Rows& rows, const std::vector<uint64_t>& row_keys,
                        const Wanted& wanted) {
  CheckWanted(rows, wanted);
  TORCH_CHECK(row_keys.size() == rows.size(), rows.size(), " rows with ", row_keys.size(), " keys");
  if (rows.empty()) return WithoutFiller(model, rows, 0, 0, model.Forward(BatchOf(model, rows, 0, 0, 1, wanted)));
  const auto forward = [&model](const Rows& some, std::vector<uint64_t> keys, const Wanted& wanted_of_some) {
    TokenBatch batch = BatchOf(model, some, 0, some.size(), some.size(), wanted_of_some);
    batch.row_keys = std::move(keys);
    return model.Forward(batch);
  };
  if (!model.pads_to_length()) return forward(rows, row_keys, wanted);
  return ForwardByLength(model, rows, wanted, LeastPadding(rows),
                         [&](const Rows& some, const std::vector<int64_t>& places, const Wanted& wanted_of_some) {
                           std::vector<uint64_t> keys;
                           for (const int64_t place : places) keys.push_back(row_keys[place]);
                           return forward(some, std::move(keys), wanted_of_some);
                         });
}

}  // namespace polystill::models
