#include "teacher_server/label_maths.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "runtime/cuda/device.h"

namespace polystill::teacher_server {
namespace {

constexpr int64_t kClasses = 1;  // the dimension
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The largest number below 1.
constexpr double kBelowOne = 1 - 0x1p-53;

// Float64 numbers that are computed with at once, 8 MiB.
constexpr int64_t kChunkNumbers = 1 << 20;

// Calls `part` with logits / T in float64 of some rows after the others: [rows, classes], never a single row, since
// ATen adds up a single long one in another order, by all its threads. A row that is alone comes twice; `count` is how
// many rows are meant.
using Part = std::function<void(const at::Tensor& tempered, int64_t first, int64_t count)>;

void ForChunks(const at::Tensor& logits, double temperature, const Part& part) {
  const at::NoGradGuard no_grad;
  const int64_t rows = logits.size(0);
  const int64_t most = std::max<int64_t>(2, kChunkNumbers / std::max<int64_t>(1, logits.size(kClasses)));
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    const at::Tensor some = logits.narrow(0, first, count).to(at::kDouble) / temperature;
    part(count == 1 ? at::cat({some, some}) : some, first, count);
  }
}

// The first `count` rows, on the host, appended.
template <typename Number>
void Extend(const at::Tensor& rows, int64_t count, std::vector<Number>* numbers) {
  const at::Tensor host =
      cuda::ToHost(rows.narrow(0, 0, count)).to(c10::CppTypeToScalarType<Number>::value).contiguous();
  const Number* from = host.const_data_ptr<Number>();
  numbers->insert(numbers->end(), from, from + host.numel());
}

// Rounding may bring the logarithm of a probability above 0, and float32 does not reach as far down as float64.
at::Tensor AsLogs(const at::Tensor& logs) { return logs.clamp(std::numeric_limits<float>::lowest(), 0); }

// Appends ids, ascending in each row of [rows, draws], with how often each comes.
void AddCounts(const at::Tensor& draws, soft_labels::Array* drawn) {
  const at::Tensor host = cuda::ToHost(draws).contiguous();
  const int32_t* id = host.const_data_ptr<int32_t>();
  for (int64_t row = 0; row < host.size(0); ++row) {
    const auto begin = static_cast<int64_t>(drawn->ids.size());
    for (int64_t i = 0; i < host.size(1); ++i, ++id) {
      if (static_cast<int64_t>(drawn->ids.size()) == begin || drawn->ids.back() != *id) {
        drawn->ids.push_back(*id);
        drawn->counts.push_back(0);
      }
      ++drawn->counts.back();
    }
    drawn->offsets.push_back(static_cast<int64_t>(drawn->ids.size()));
  }
}

}  // namespace

soft_labels::Array TopKOf(const at::Tensor& logits, double temperature, int64_t k) {
  soft_labels::Array top;
  top.width = k + 1;
  ForChunks(logits, temperature, [&](const at::Tensor& z, int64_t, int64_t count) {
    const at::Tensor ids =
        std::get<0>(at::sort(std::get<1>(at::topk(z, k, kClasses, true, /*sorted=*/false)), kClasses));
    const at::Tensor known = z.gather(kClasses, ids);
    at::Tensor rest = at::full({z.size(0), 1}, -kInfinity, z.options());
    if (k < z.size(kClasses)) rest = at::logsumexp(z.scatter(kClasses, ids, -kInfinity), kClasses, /*keepdim=*/true);
    const at::Tensor all = at::cat({known, rest}, kClasses);
    const at::Tensor logs = all - at::logsumexp(all, kClasses, /*keepdim=*/true);
    // Where nothing is left the log stays minus infinity.
    Extend(at::where(all.isneginf(), all, AsLogs(logs)), count, &top.numbers);
    Extend(ids, count, &top.ids);
  });
  return top;
}

soft_labels::Array SampledOf(const at::Tensor& logits, double temperature, int32_t draws,
                             const std::vector<double>& uniforms) {
  soft_labels::Array drawn;
  drawn.width = 1;
  drawn.offsets.push_back(0);
  ForChunks(logits, temperature, [&](const at::Tensor& z, int64_t first, int64_t count) {
    const at::Tensor shifted = z - z.amax(kClasses, /*keepdim=*/true);
    const at::Tensor weights = shifted.exp();
    const at::Tensor cumulative = weights.cumsum(kClasses);
    const at::Tensor total = cumulative.narrow(kClasses, cumulative.size(kClasses) - 1, 1);
    const at::Tensor entropy = total.log() - (weights * shifted).sum(kClasses, /*keepdim=*/true) / total;
    Extend(entropy.clamp_min(0), count, &drawn.numbers);
    // The id of u is the first whose cumulative weight is above it; one of weight 0 is never that.
    const std::vector<double> chosen(uniforms.begin() + first, uniforms.begin() + first + count);
    const at::Tensor starts = cuda::ToDevice(at::tensor(chosen, at::kDouble).unsqueeze(1), z.device());
    const at::Tensor ends = total.narrow(0, 0, count);
    const at::Tensor points = (at::arange(draws, z.options()) + starts) / draws * ends;
    const at::Tensor below = at::minimum(points, ends * kBelowOne);  // rounding may bring the last one to the end
    AddCounts(at::searchsorted(cumulative.narrow(0, 0, count), below, /*out_int32=*/true, /*right=*/true), &drawn);
  });
  return drawn;
}

soft_labels::Array ScoresOf(const at::Tensor& logits, double temperature, const std::vector<int32_t>& ids,
                            const std::vector<int64_t>& offsets) {
  soft_labels::Array scores;
  scores.offsets = offsets;
  ForChunks(logits, temperature, [&](const at::Tensor& z, int64_t first, int64_t count) {
    const at::Tensor normaliser = at::logsumexp(z, kClasses, /*keepdim=*/true);
    std::vector<int64_t> rows, columns;
    for (int64_t row = first; row < first + count; ++row) {
      for (int64_t i = offsets[row]; i < offsets[row + 1]; ++i) rows.push_back(row - first), columns.push_back(ids[i]);
    }
    const auto there = [&](const std::vector<int64_t>& places) {
      return cuda::ToDevice(at::tensor(places, at::kLong), z.device());
    };
    const at::Tensor of_rows = there(rows);
    const at::Tensor logs = z.index({of_rows, there(columns)}) - normaliser.squeeze(kClasses).index({of_rows});
    Extend(AsLogs(logs), static_cast<int64_t>(rows.size()), &scores.numbers);
  });
  return scores;
}

soft_labels::Array ClassesOf(const at::Tensor& logits) {
  const at::NoGradGuard no_grad;
  soft_labels::Array classes;
  if (logits.size(0) > 0) Extend(logits.argmax(kClasses), logits.size(0), &classes.ids);
  return classes;
}

}  // namespace polystill::teacher_server
