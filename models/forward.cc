#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "models/model.h"

namespace polystill::models {
namespace {

using Rows = std::vector<std::vector<int32_t>>;

constexpr int32_t kFillerId = 0;

at::Tensor CopyOf(const std::vector<int64_t>& values) { return at::tensor(values, at::TensorOptions(at::kLong)); }

// Logits of `rows`, forward after forward of kRowsPerForward rows.
at::Tensor ForwardInChunks(const Model& model, const Rows& rows) {
  std::vector<at::Tensor> logits;
  size_t first = 0;
  do {
    const size_t last = std::min(rows.size(), first + kRowsPerForward);
    const at::Tensor chunk = model.Forward(MakeBatch(rows, first, last, kRowsPerForward));
    logits.push_back(chunk.narrow(0, 0, static_cast<int64_t>(last - first)));
    first = last;
  } while (first < rows.size());
  return logits.size() == 1 ? logits[0] : at::cat(logits);
}

// What a forward of some of the rows gives; `places` says which.
using ForwardSome = std::function<at::Tensor(const Rows& some, const std::vector<int64_t>& places)>;

// Rows of one length bucket go through `forward` together; the logits come back in the order of `rows`.
at::Tensor ForwardByBucket(const Rows& rows, const ForwardSome& forward) {
  std::vector<int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  const auto bucket = [&rows](int64_t row) { return LengthBucket(static_cast<int64_t>(rows[row].size())); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return bucket(a) < bucket(b); });
  std::vector<at::Tensor> logits;
  for (size_t first = 0; first < order.size();) {
    Rows some;
    std::vector<int64_t> places;
    while (first < order.size() && (places.empty() || bucket(order[first]) == bucket(places[0]))) {
      places.push_back(order[first++]);
      some.push_back(rows[places.back()]);
    }
    logits.push_back(forward(some, places));
  }
  return at::cat(logits).index_select(0, CopyOf(order).argsort());
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
  const int64_t length = std::min(LengthBucket(longest), max_length);
  padded.mask = at::arange(length).unsqueeze(0).lt(padded.lengths.unsqueeze(1));
  padded.ids = at::zeros({padded.lengths.size(0), length}, at::kLong).masked_scatter(padded.mask, batch.ids);
  return padded;
}

at::Tensor FixedShapeForward(const Model& model, const Rows& rows) {
  if (rows.empty() || !model.pads_to_length()) return ForwardInChunks(model, rows);
  return ForwardByBucket(rows, [&](const Rows& some, const auto&) { return ForwardInChunks(model, some); });
}

at::Tensor TrainingForward(const Model& model, const Rows& rows, const std::vector<uint64_t>& row_keys) {
  TORCH_CHECK(row_keys.size() == rows.size(), rows.size(), " rows with ", row_keys.size(), " keys");
  if (rows.empty()) return model.Forward(MakeBatch(rows, 0, 0, 1)).narrow(0, 0, 0);
  const auto forward = [&model](const Rows& some, std::vector<uint64_t> keys) {
    TokenBatch batch = MakeBatch(some, 0, some.size());
    batch.row_keys = std::move(keys);
    return model.Forward(batch);
  };
  if (!model.pads_to_length()) return forward(rows, row_keys);
  return ForwardByBucket(rows, [&](const Rows& some, const std::vector<int64_t>& places) {
    std::vector<uint64_t> keys;
    for (const int64_t place : places) keys.push_back(row_keys[place]);
    return forward(some, std::move(keys));
  });
}

}  // namespace polystill::models
