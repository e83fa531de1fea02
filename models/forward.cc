#include <algorithm>
#include <numeric>

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

// Rows of one length bucket go through together; the logits come back in the order of `rows`.
at::Tensor ForwardByBucket(const Model& model, const Rows& rows) {
  std::vector<int64_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  const auto bucket = [&rows](int64_t row) { return LengthBucket(static_cast<int64_t>(rows[row].size())); };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return bucket(a) < bucket(b); });
  std::vector<at::Tensor> logits;
  for (size_t first = 0; first < order.size();) {
    Rows group;
    size_t last = first;
    while (last < order.size() && bucket(order[last]) == bucket(order[first])) group.push_back(rows[order[last++]]);
    logits.push_back(ForwardInChunks(model, group));
    first = last;
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

at::Tensor FixedShapeForward(const Model& model, const Rows& rows) {
  if (rows.empty() || !model.pads_to_length()) return ForwardInChunks(model, rows);
  return ForwardByBucket(model, rows);
}

}  // namespace polystill::models
