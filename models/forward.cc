#include <algorithm>
#include <functional>
#include <numeric>
#include <utility>

#include "models/model.h"
#include "models/row_groups.h"
#include "runtime/cuda/device.h"

namespace polystill::models {
namespace {

constexpr int32_t kFillerId = 0;

at::Tensor CopyOf(const std::vector<int64_t>& values) { return at::tensor(values, at::TensorOptions(at::kLong)); }

// Places of the tokens whose logits are wanted, in a batch of `rows`.
at::Tensor PositionsOf(const Rows& rows, const Rows& wanted) {
  std::vector<int64_t> positions;
  int64_t offset = 0;
  for (size_t row = 0; row < rows.size(); ++row) {
    const auto length = static_cast<int64_t>(rows[row].size());
    for (int64_t place = 0; wanted.empty() && place < length; ++place) positions.push_back(offset + place);
    for (size_t i = 0; !wanted.empty() && i < wanted[row].size(); ++i) {
      const int32_t place = wanted[row][i];
      TORCH_CHECK(place >= 0 && place < length, "position ", place, " of a row of ", length, " tokens");
      positions.push_back(offset + place);
    }
    offset += length;
  }
  return CopyOf(positions);
}

// The rows, filled up, with what is wanted of them. A filler's token is no position that anybody wants.
TokenBatch BatchOf(const Model& model, const Rows& rows, const Wanted& wanted, Shape fill_to) {
  TokenBatch batch = MakeBatch(rows, fill_to);
  batch.features = wanted.features;
  batch.head_input = wanted.head_input;
  if (model.judges_tokens()) batch.positions = PositionsOf(rows, wanted.positions);
  return batch;
}

int64_t CountTokens(const Rows& rows) {
  int64_t tokens = 0;
  for (const auto& row : rows) tokens += static_cast<int64_t>(row.size());
  return tokens;
}

// Without what the filler gave, which is last; logits of tokens have none of it.
Outputs WithoutFiller(const Model& model, const Rows& rows, Outputs outputs) {
  const auto count = static_cast<int64_t>(rows.size());
  if (!model.judges_tokens() && outputs.logits.defined()) outputs.logits = outputs.logits.narrow(0, 0, count);
  for (auto& [name, feature] : outputs.features) {
    feature = feature.narrow(0, 0, IsOfTokens(name) ? CountTokens(rows) : count);
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

// Group after group through `forward`; the outputs come back in the order of `rows`.
Outputs ForwardGroups(const Model& model, const Rows& rows, const Wanted& wanted, RowGroups groups,
                      const ForwardSome& forward) {
  if (groups.empty()) groups.emplace_back();  // a forward all the same
  std::vector<int64_t> order;
  std::vector<Outputs> parts;
  for (const std::vector<int64_t>& places : groups) {
    Rows some;
    Wanted wanted_of_some = wanted;
    wanted_of_some.positions.clear();
    for (const int64_t place : places) {
      some.push_back(rows[place]);
      if (!wanted.positions.empty()) wanted_of_some.positions.push_back(wanted.positions[place]);
    }
    parts.push_back(WithoutFiller(model, some, forward(some, places, wanted_of_some)));
    order.insert(order.end(), places.begin(), places.end());
  }
  Outputs outputs = Concatenate(std::move(parts));
  if (std::is_sorted(order.begin(), order.end())) return outputs;
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

// The groups of rows of fixed shapes, each `shape`d by one of its rows' length.
struct FixedShapes {
  RowGroups groups;
  std::function<Shape(int64_t length)> shape;
};

// On a GPU rows are padded for attention, so that what goes through together is of one bucket there.
FixedShapes FixedShapesOf(const Model& model, const Rows& rows) {
  const at::DeviceType device = model.sized_for();
  const std::vector<int64_t> lengths = SizesOf(rows);
  const bool fills_tokens = model.takes() == Model::Takes::kTokens;
  if (model.takes() == Model::Takes::kRows) {
    return {GroupByRows(lengths, kRowsPerForward), [](int64_t) { return Shape{kRowsPerForward, 0}; }};
  }
  if (fills_tokens && device == at::kCPU) {
    return {GroupByTokens(lengths, device), [device](int64_t length) {
              return Shape{kRowsPerForward, static_cast<size_t>(TokensPerForward(length, device))};
            }};
  }
  if (model.takes() == Model::Takes::kAnyRows) {
    return {GroupByBucket(lengths, device), [](int64_t) { return Shape{}; }};
  }
  return {GroupByBucket(lengths, device), [=](int64_t length) {
            const int64_t bucket = LengthBucket(length);
            const int64_t rows = RowsPerForward(bucket, device);
            const int64_t tokens = fills_tokens ? std::max(TokensPerForward(bucket, device), rows * bucket) : 0;
            return Shape{static_cast<size_t>(rows), static_cast<size_t>(tokens)};
          }};
}

}  // namespace

TokenBatch MakeBatch(const Rows& rows, Shape fill_to) {
  std::vector<int64_t> ids;
  std::vector<int64_t> offsets = {0};
  for (const auto& row : rows) {
    ids.insert(ids.end(), row.begin(), row.end());
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  while (offsets.size() - 1 < fill_to.rows) {
    if (fill_to.tokens == 0) ids.push_back(kFillerId);
    offsets.push_back(static_cast<int64_t>(ids.size()));
  }
  ids.resize(std::max(ids.size(), fill_to.tokens), kFillerId);
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
  const FixedShapes fixed = FixedShapesOf(model, rows);
  Outputs outputs = ForwardGroups(model, rows, wanted, fixed.groups,
                                  [&](const Rows& some, const auto&, const Wanted& wanted_of_some) {
                                    const int64_t length = some.empty() ? 0 : static_cast<int64_t>(some[0].size());
                                    return model.Forward(BatchOf(model, some, wanted_of_some, fixed.shape(length)));
                                  });
  if (wanted.on_device) return outputs;
  outputs.logits = cuda::ToHost(outputs.logits);
  for (auto& [name, feature] : outputs.features) feature = cuda::ToHost(feature);
  return outputs;
}

Outputs TrainingForward(const Model& model, const Rows& rows, const std::vector<uint64_t>& row_keys,
                        const Wanted& wanted) {
  CheckWanted(rows, wanted);
  TORCH_CHECK(row_keys.size() == rows.size(), rows.size(), " rows with ", row_keys.size(), " keys");
  const std::vector<int64_t> lengths = SizesOf(rows);
  const bool pads = model.takes() == Model::Takes::kPaddedRows;
  return ForwardGroups(model, rows, wanted,
                       pads ? GroupByCost(lengths) : GroupByRows(lengths, static_cast<int64_t>(rows.size())),
                       [&](const Rows& some, const std::vector<int64_t>& places, const Wanted& wanted_of_some) {
                         // An empty slice is a filler's forward.
                         TokenBatch batch = BatchOf(model, some, wanted_of_some, {.rows = some.empty() ? 1u : 0u});
                         for (const int64_t place : places) batch.row_keys.push_back(row_keys[place]);
                         return model.Forward(batch);
                       });
}

}  // namespace polystill::models
