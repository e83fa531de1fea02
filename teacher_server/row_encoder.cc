#include "teacher_server/row_encoder.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runtime/counter_rng.h"
#include "runtime/cuda/device.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/dense.h"
#include "soft_labels/label_key.h"
#include "teacher_server/label_maths.h"

namespace polystill::teacher_server {
namespace {

using soft_labels::Array;
using soft_labels::Output;

// U of systematic sampling for each row.
std::vector<double> UniformsOf(const v1::DescribeReply& teacher, const v1::LabelRequest& request,
                               const Output& output) {
  const soft_labels::LabelKeys keys(teacher, request.spec(), output);
  std::vector<double> uniforms;
  for (const v1::LabelInput& input : request.inputs()) {
    const uint64_t key = soft_labels::KeyWord(keys.KeyOf(input));
    for (int64_t row = 0; row < output.RowsOf(input); ++row) uniforms.push_back(UniformOpen(key, row));
  }
  return uniforms;
}

Array ScoresAsked(const v1::LabelRequest& request, const Output& output, const at::Tensor& logits, double temperature) {
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets = {0};
  for (const v1::LabelInput& input : request.inputs()) {
    ids.insert(ids.end(), input.score_ids().begin(), input.score_ids().end());
    const soft_labels::RecordSize size = SizeOf(request.spec(), output, input);
    for (int64_t row = 0; row < size.rows; ++row) offsets.push_back(offsets.back() + size.scores_per_row);
  }
  return ScoresOf(logits, temperature, ids, offsets);
}

Array ArrayOf(const v1::DescribeReply& teacher, const v1::LabelRequest& request, const Output& output,
              const at::Tensor& numbers) {
  const v1::LabelSpec& spec = request.spec();
  const double temperature = spec.temperature() == 0 ? 1 : spec.temperature();
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return TopKOf(numbers, temperature, spec.k());
    case v1::CODEC_SAMPLED:
      return SampledOf(numbers, temperature, spec.draws(), UniformsOf(teacher, request, output));
    case v1::CODEC_SCORES:
      return ScoresAsked(request, output, numbers, temperature);
    default:
      return ClassesOf(numbers);
  }
}

// Every number, without another copy of them.
absl::StatusOr<v1::SoftLabels> EncodeEvery(v1::Codec codec, const at::Tensor& numbers,
                                           const soft_labels::RowName& row_name) {
  const at::Tensor host = cuda::ToHost(numbers).contiguous();
  const std::span<const float> all(host.const_data_ptr<float>(), static_cast<size_t>(host.numel()));
  return soft_labels::EncodeDense(codec, all, host.size(0), host.size(1), row_name);
}

absl::Status CheckFinite(const at::Tensor& numbers, const soft_labels::RowName& row_name) {
  const at::Tensor bad = numbers.isfinite().all(1).logical_not();
  if (!bad.any().item<bool>()) return absl::OkStatus();
  const int64_t row = bad.nonzero()[0][0].item<int64_t>();
  const int64_t place = numbers[row].isfinite().logical_not().nonzero()[0][0].item<int64_t>();
  return absl::InternalError(absl::StrCat(row_name(row), ": number ", place, " is ", numbers[row][place].item<float>(),
                                          ", not a finite number"));
}

}  // namespace

absl::StatusOr<v1::SoftLabels> EncodeRows(const v1::DescribeReply& teacher, const v1::LabelRequest& request,
                                          const Output& output, const at::Tensor& numbers) {
  const auto row_name = [&](int64_t row) { return soft_labels::NameOfRow(output, request.inputs(), row); };
  try {
    const v1::Codec codec = request.spec().codec();
    const bool every = soft_labels::IsDense(codec) || codec == v1::CODEC_HIDDEN_HEAD;
    if (!every) RETURN_IF_ERROR(CheckFinite(numbers, row_name));
    absl::StatusOr<v1::SoftLabels> labels =
        every ? EncodeEvery(codec, numbers, row_name)
              : Encode(ArrayOf(teacher, request, output, numbers), request.spec(), output, numbers.size(0), row_name);
    if (labels.ok()) return labels;
    if (every) RETURN_IF_ERROR(CheckFinite(numbers, row_name));  // it looked at each number itself
    return absl::OutOfRangeError(labels.status().message());
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("encoding failed: ", error.what_without_backtrace()));
  }
}

}  // namespace polystill::teacher_server
