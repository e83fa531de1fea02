#include "soft_labels/dense.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"
#include "soft_labels/half.h"

namespace polystill::soft_labels {
namespace {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian and copied as they lie");

constexpr float kLargestHalf = 65504.0f;

// What a codec stands for; bytes_per_value 0 when it is not a dense one.
struct DenseFormat {
  v1::Tensor::Dtype dtype = v1::Tensor::DTYPE_UNSPECIFIED;
  int64_t bytes_per_value = 0;
  float largest = 0;
};

DenseFormat FormatOf(v1::Codec codec) {
  switch (codec) {
    case v1::CODEC_DENSE_FP32:
      return {v1::Tensor::DTYPE_FLOAT32, 4, std::numeric_limits<float>::max()};
    case v1::CODEC_DENSE_FP16:
      return {v1::Tensor::DTYPE_FLOAT16, 2, kLargestHalf};
    default:
      return {};
  }
}

std::string NameOf(int64_t row, const RowName& row_name) {
  return row_name ? row_name(row) : absl::StrCat("row ", row);
}

absl::Status CheckValues(std::span<const float> numbers, int64_t width, float largest, const RowName& row_name) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::abs(numbers[i]) <= largest) continue;  // false for NaN
    const int64_t at = static_cast<int64_t>(i);
    return absl::InvalidArgumentError(
        absl::StrCat(NameOf(at / width, row_name), ": number ", at % width, " is ", numbers[i],
                     std::isfinite(numbers[i]) ? ", beyond what dense_fp16 holds (65504); ask for dense_fp32"
                                               : ", not a finite number"));
  }
  return absl::OkStatus();
}

absl::Status UnknownCodec(v1::Codec codec) {
  return absl::InvalidArgumentError(
      absl::StrCat("codec ", static_cast<int>(codec), " is not known here; known are dense_fp32 and dense_fp16"));
}

}  // namespace

int64_t BytesPerNumber(v1::Codec codec) { return FormatOf(codec).bytes_per_value; }

absl::StatusOr<v1::SoftLabels> EncodeDense(v1::Codec codec, std::span<const float> numbers, int64_t rows, int64_t width,
                                           const RowName& row_name) {
  const DenseFormat format = FormatOf(codec);
  if (format.bytes_per_value == 0) return UnknownCodec(codec);
  if (rows < 0 || width < 1 || rows * width != static_cast<int64_t>(numbers.size())) {
    return absl::InvalidArgumentError(absl::StrCat(numbers.size(), " numbers are not [", rows, ", ", width, "]"));
  }
  RETURN_IF_ERROR(CheckValues(numbers, width, format.largest, row_name));
  v1::SoftLabels labels;
  labels.set_codec(codec);
  v1::Tensor& tensor = *labels.mutable_dense();
  tensor.set_dtype(format.dtype);
  tensor.add_shape(rows);
  tensor.add_shape(width);
  std::string& data = *tensor.mutable_data();
  data.resize(format.bytes_per_value * numbers.size());
  if (codec == v1::CODEC_DENSE_FP32) {
    std::memcpy(data.data(), numbers.data(), data.size());
    return labels;
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    const uint16_t half = FloatToHalf(numbers[i]);
    std::memcpy(data.data() + 2 * i, &half, 2);
  }
  return labels;
}

absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, int64_t rows, int64_t width,
                                               const RowName& row_name) {
  const DenseFormat format = FormatOf(labels.codec());
  if (format.bytes_per_value == 0) return UnknownCodec(labels.codec());
  const v1::Tensor& tensor = labels.dense();
  if (tensor.dtype() != format.dtype) {
    return absl::InvalidArgumentError(absl::StrCat("labels of codec ", v1::Codec_Name(labels.codec()),
                                                   " came with values of dtype ", static_cast<int>(tensor.dtype())));
  }
  if (tensor.shape_size() != 2 || tensor.shape(0) != rows || tensor.shape(1) != width) {
    return absl::InvalidArgumentError(absl::StrCat("expected labels of shape [", rows, ", ", width, "], got [",
                                                   absl::StrJoin(tensor.shape(), ", "), "]"));
  }
  const std::string& data = tensor.data();
  if (static_cast<int64_t>(data.size()) != format.bytes_per_value * rows * width) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected ", format.bytes_per_value * rows * width, " bytes of labels, got ", data.size()));
  }
  std::vector<float> numbers(rows * width);
  if (labels.codec() == v1::CODEC_DENSE_FP32) {
    std::memcpy(numbers.data(), data.data(), data.size());
  } else {
    for (size_t i = 0; i < numbers.size(); ++i) {
      uint16_t half;
      std::memcpy(&half, data.data() + 2 * i, 2);
      numbers[i] = HalfToFloat(half);
    }
  }
  RETURN_IF_ERROR(CheckValues(numbers, width, format.largest, row_name));
  return numbers;
}

}  // namespace polystill::soft_labels
