#include "soft_labels/dense.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/status.h"
#include "soft_labels/byte_chunks.h"
#include "soft_labels/codec.h"
#include "soft_labels/half.h"

namespace polystill::soft_labels {
namespace {

static_assert(std::endian::native == std::endian::little, "payloads are little-endian and copied as they lie");

constexpr float kLargestHalf = 65504.0f;
constexpr float kLargestBrain = 0x1.fep127f;
constexpr int64_t kInt8HeaderBytes = 8;
constexpr float kInt8Steps = 127.0f;
// Numbers that are copied and then looked at: they fit the first cache.
constexpr size_t kBlock = 2'048;

// What a codec stands for; bytes_per_value 0 when it is not one of these.
struct DenseFormat {
  v1::Tensor::Dtype dtype = v1::Tensor::DTYPE_UNSPECIFIED;  // dense_int8 is packed
  int64_t bytes_per_value = 0;
  float largest = 0;
};

DenseFormat FormatOf(v1::Codec codec) {
  switch (codec) {
    case v1::CODEC_DENSE_FP32:
      return {v1::Tensor::DTYPE_FLOAT32, 4, std::numeric_limits<float>::max()};
    case v1::CODEC_DENSE_FP16:
    case v1::CODEC_HIDDEN_HEAD:
      return {v1::Tensor::DTYPE_FLOAT16, 2, kLargestHalf};
    case v1::CODEC_DENSE_BF16:
      return {v1::Tensor::DTYPE_BFLOAT16, 2, kLargestBrain};
    case v1::CODEC_DENSE_INT8:  // twice its largest number is finite: so is a row's span, and what is decoded
      return {v1::Tensor::DTYPE_UNSPECIFIED, 1, std::numeric_limits<float>::max() / 4};
    default:
      return {};
  }
}

// By blocks, within which nothing ends early, so that compilers make vector instructions of it. False for a NaN.
bool AreWithin(std::span<const float> numbers, float largest) {
  constexpr size_t kBlock = 32;
  size_t i = 0;
  int beyond = 0;
  for (; i + kBlock <= numbers.size() && beyond == 0; i += kBlock) {
    const float* const block = numbers.data() + i;
    for (size_t k = 0; k < kBlock; ++k) beyond |= std::abs(block[k]) <= largest ? 0 : 1;
  }
  for (; i < numbers.size(); ++i) beyond |= std::abs(numbers[i]) <= largest ? 0 : 1;
  return beyond == 0;
}

absl::Status CheckValues(std::span<const float> numbers, int64_t width, v1::Codec codec, float largest,
                         const RowName& row_name) {
  if (AreWithin(numbers, largest)) return absl::OkStatus();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::abs(numbers[i]) <= largest) continue;
    const int64_t at = static_cast<int64_t>(i);
    return absl::InvalidArgumentError(absl::StrCat(
        NameOf(at / width, row_name), ": number ", at % width, " is ", numbers[i],
        std::isfinite(numbers[i])
            ? absl::StrCat(", beyond what ", CodecName(codec), " holds (", largest, "); ask for dense_fp32")
            : ", not a finite number"));
  }
  return absl::OkStatus();
}

absl::Status UnknownCodec(v1::Codec codec) {
  return absl::InvalidArgumentError(absl::StrCat(CodecName(codec), " does not hold every number of a row"));
}

// Rounds to nearest, ties to even.
uint16_t FloatToBrain(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float BrainToFloat(uint16_t brain) { return std::bit_cast<float>(static_cast<uint32_t>(brain) << 16); }

template <typename Convert>
void WriteHalves(std::span<const float> numbers, Convert convert, std::string* data) {
  data->resize(2 * numbers.size());
  char* to = data->data();
  for (const float number : numbers) {
    const uint16_t half = convert(number);
    std::memcpy(to, &half, 2);
    to += 2;
  }
}

// By blocks, which are checked while they are near. False when a number is beyond `largest`, or a NaN.
bool CopyNumbers(std::span<const float> numbers, float largest, std::string* data) {
  bool within = true;
  data->reserve(numbers.size_bytes());
  for (size_t first = 0; first < numbers.size(); first += kBlock) {
    const std::span<const float> some = numbers.subspan(first, std::min(kBlock, numbers.size() - first));
    within &= AreWithin(some, largest);
    data->append(reinterpret_cast<const char*>(some.data()), some.size_bytes());
  }
  return within;
}

// Reads `count` numbers into `numbers`, which is empty. `from` holds Numbers, which `convert` makes floats of, unless
// they are: by blocks, which are checked while they are near. False when one is beyond `largest`, or a NaN.
template <typename Number, typename Convert>
bool ReadNumbers(ByteChunkReader from, size_t count, float largest, Convert convert, std::vector<float>* numbers) {
  bool within = true;
  numbers->reserve(count);
  while (numbers->size() < count) {
    const size_t first = numbers->size();
    numbers->resize(std::min(count, first + kBlock));
    const std::span<float> some = std::span(*numbers).subspan(first);
    if constexpr (std::is_same_v<Number, float>) {
      from.Read(some.data(), some.size_bytes());
    } else {
      Number block[kBlock];
      from.Read(block, some.size() * sizeof(Number));
      std::transform(block, block + some.size(), some.begin(), convert);
    }
    within &= AreWithin(some, largest);
  }
  return within;
}

void WriteInt8Row(std::span<const float> row, char* to) {
  const auto [least, most] = std::minmax_element(row.begin(), row.end());
  const float header[2] = {static_cast<float>((static_cast<double>(*least) + *most) / 2),
                           static_cast<float>((static_cast<double>(*most) - *least) / (2 * kInt8Steps))};
  std::memcpy(to, header, kInt8HeaderBytes);
  to += kInt8HeaderBytes;
  const float scale = header[1] > 0 ? header[1] : 1;  // of a row of equal numbers
  for (const float number : row) {
    const float step = std::nearbyint(std::clamp((number - header[0]) / scale, -kInt8Steps, kInt8Steps));
    *to++ = static_cast<char>(static_cast<int8_t>(step));
  }
}

// `numbers` has as many as the row.
absl::Status ReadInt8Row(const char* from, std::span<float> numbers) {
  float header[2];
  std::memcpy(header, from, kInt8HeaderBytes);
  const float largest = FormatOf(v1::CODEC_DENSE_INT8).largest;
  if (!(std::abs(header[0]) <= largest && header[1] >= 0 && header[1] <= largest / kInt8Steps)) {
    return absl::InvalidArgumentError(absl::StrCat("centre ", header[0], " and scale ", header[1], " are no row's"));
  }
  from += kInt8HeaderBytes;
  for (float& number : numbers) number = header[0] + header[1] * static_cast<float>(static_cast<int8_t>(*from++));
  return absl::OkStatus();
}

// Appends `rows` rows to `numbers`.
absl::Status ReadInt8Rows(ByteChunkReader from, int64_t rows, int64_t width, const RowName& row_name,
                          std::vector<float>* numbers) {
  std::string bytes(DenseRowBytes(v1::CODEC_DENSE_INT8, width), '\0');
  numbers->resize(rows * width);
  for (int64_t row = 0; row < rows; ++row) {
    from.Read(bytes.data(), bytes.size());
    const absl::Status status = ReadInt8Row(bytes.data(), std::span(*numbers).subspan(row * width, width));
    if (!status.ok()) return Annotate(status, NameOf(row, row_name));
  }
  return absl::OkStatus();
}

absl::Status CheckTensor(const v1::SoftLabels& labels, const DenseFormat& format, int64_t rows, int64_t width) {
  const v1::Tensor& tensor = labels.dense();
  if (tensor.dtype() != format.dtype) {
    return absl::InvalidArgumentError(absl::StrCat("labels of codec ", v1::Codec_Name(labels.codec()),
                                                   " came with values of dtype ", static_cast<int>(tensor.dtype())));
  }
  if (tensor.shape_size() != 2 || tensor.shape(0) != rows || tensor.shape(1) != width) {
    return absl::InvalidArgumentError(absl::StrCat("expected labels of shape [", rows, ", ", width, "], got [",
                                                   absl::StrJoin(tensor.shape(), ", "), "]"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t DenseRowBytes(v1::Codec codec, int64_t width) {
  return FormatOf(codec).bytes_per_value * width + (codec == v1::CODEC_DENSE_INT8 ? kInt8HeaderBytes : 0);
}

absl::StatusOr<v1::SoftLabels> EncodeDense(v1::Codec codec, std::span<const float> numbers, int64_t rows, int64_t width,
                                           const RowName& row_name) {
  const DenseFormat format = FormatOf(codec);
  if (format.bytes_per_value == 0) return UnknownCodec(codec);
  if (rows < 0 || width < 1 || rows * width != static_cast<int64_t>(numbers.size())) {
    return absl::InvalidArgumentError(absl::StrCat(numbers.size(), " numbers are not [", rows, ", ", width, "]"));
  }
  v1::SoftLabels labels;
  if (codec == v1::CODEC_DENSE_FP32) {
    if (!CopyNumbers(numbers, format.largest, labels.mutable_dense()->mutable_data())) {
      return CheckValues(numbers, width, codec, format.largest, row_name);
    }
  } else {
    RETURN_IF_ERROR(CheckValues(numbers, width, codec, format.largest, row_name));
  }
  labels.set_codec(codec);
  if (codec == v1::CODEC_DENSE_INT8) {
    const int64_t row_bytes = DenseRowBytes(codec, width);
    labels.mutable_packed()->resize(rows * row_bytes);
    for (int64_t row = 0; row < rows; ++row) {
      WriteInt8Row(numbers.subspan(row * width, width), labels.mutable_packed()->data() + row * row_bytes);
    }
    return labels;
  }
  v1::Tensor& tensor = *labels.mutable_dense();
  tensor.set_dtype(format.dtype);
  tensor.add_shape(rows);
  tensor.add_shape(width);
  std::string& data = *tensor.mutable_data();
  if (codec == v1::CODEC_DENSE_BF16) WriteHalves(numbers, FloatToBrain, &data);
  if (codec == v1::CODEC_DENSE_FP16 || codec == v1::CODEC_HIDDEN_HEAD) WriteHalves(numbers, FloatToHalf, &data);
  return labels;
}

absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, int64_t rows, int64_t width,
                                               const RowName& row_name) {
  const bool packed = labels.codec() == v1::CODEC_DENSE_INT8;
  const std::string_view data = packed ? labels.packed() : labels.dense().data();
  return DecodeDense(labels, {&data, 1}, rows, width, row_name);
}

absl::StatusOr<std::vector<float>> DecodeDense(const v1::SoftLabels& labels, std::span<const std::string_view> data,
                                               int64_t rows, int64_t width, const RowName& row_name) {
  const v1::Codec codec = labels.codec();
  const DenseFormat format = FormatOf(codec);
  if (format.bytes_per_value == 0) return UnknownCodec(codec);
  if (codec != v1::CODEC_DENSE_INT8) RETURN_IF_ERROR(CheckTensor(labels, format, rows, width));
  const int64_t bytes = DenseRowBytes(codec, width) * rows;
  if (static_cast<int64_t>(BytesOf(data)) != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("expected ", bytes, " bytes of labels, got ", BytesOf(data)));
  }
  const ByteChunkReader from(data);
  std::vector<float> numbers;
  if (codec == v1::CODEC_DENSE_INT8) {
    RETURN_IF_ERROR(ReadInt8Rows(from, rows, width, row_name, &numbers));
    return numbers;
  }
  const auto count = static_cast<size_t>(rows * width);
  bool within = true;
  if (codec == v1::CODEC_DENSE_FP32) {
    within = ReadNumbers<float>(from, count, format.largest, nullptr, &numbers);
  } else if (codec == v1::CODEC_DENSE_BF16) {
    within = ReadNumbers<uint16_t>(from, count, format.largest, BrainToFloat, &numbers);
  } else {
    within = ReadNumbers<uint16_t>(from, count, format.largest, HalfToFloat, &numbers);
  }
  if (!within) return CheckValues(numbers, width, codec, format.largest, row_name);
  return numbers;
}

}  // namespace polystill::soft_labels
