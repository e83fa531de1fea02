#include "soft_labels/decode.h"

#include <numeric>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/dense.h"
#include "soft_labels/plain.h"
#include "soft_labels/sampled.h"
#include "soft_labels/top_k.h"

namespace polystill::soft_labels {
namespace {

// An entry of row_bytes has at most so many bytes on the wire.
constexpr int64_t kRowBytesEntry = 4;

int64_t WidthOf(v1::Codec codec, const Output& output) {
  return codec == v1::CODEC_HIDDEN_HEAD ? output.head_width : output.width;
}

// Whether a codec's labels are in SoftLabels.dense, and not in `packed`.
bool HasTensor(v1::Codec codec) {
  return codec == v1::CODEC_HIDDEN_HEAD || (IsDense(codec) && codec != v1::CODEC_DENSE_INT8);
}

int64_t RowsOf(const std::vector<RecordSize>& sizes) {
  int64_t rows = 0;
  for (const RecordSize& size : sizes) rows += size.rows;
  return rows;
}

// Bytes of the next `rows` rows of codec sampled, which begin at `first`; -1 when they are not there.
int64_t SampledBytes(const v1::SoftLabels& labels, int64_t first, int64_t rows) {
  if (first + rows > labels.row_bytes_size()) return -1;
  const auto begin = labels.row_bytes().begin() + first;
  return std::accumulate(begin, begin + rows, int64_t{0});
}

}  // namespace

int64_t RowBytes(const v1::LabelSpec& spec, const Output& output, int64_t scores_per_row) {
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return TopKRowBytes(spec.k(), output.width);
    case v1::CODEC_SAMPLED:
      return MostSampledRowBytes(spec.draws(), output.width) + kRowBytesEntry;
    case v1::CODEC_SCORES:
      return scores_per_row * kScoreBytes;
    case v1::CODEC_CLASSES:
      return kClassBytes;
    default:
      return DenseRowBytes(spec.codec(), WidthOf(spec.codec(), output));
  }
}

RecordSize SizeOf(const v1::LabelSpec& spec, const Output& output, const v1::LabelInput& input) {
  RecordSize size;
  size.rows = output.RowsOf(input);
  if (size.rows > 0) size.scores_per_row = input.score_ids_size() / size.rows;
  size.bytes = size.rows * RowBytes(spec, output, size.scores_per_row);
  return size;
}

int64_t BytesOf(const v1::LabelSpec& spec, const Outputs& outputs, const v1::LabelInput& input) {
  int64_t bytes = 0;
  for (const Output& output : outputs) bytes += SizeOf(spec, output, input).bytes;
  return bytes;
}

absl::StatusOr<Array> Decode(const v1::SoftLabels& labels, const v1::LabelSpec& spec, const Output& output,
                             const std::vector<RecordSize>& sizes, const RowName& row_name) {
  const std::string_view numbers = labels.dense().data();
  return Decode(labels, {&numbers, 1}, spec, output, sizes, row_name);
}

absl::StatusOr<Array> Decode(const v1::SoftLabels& labels, std::span<const std::string_view> numbers,
                             const v1::LabelSpec& spec, const Output& output, const std::vector<RecordSize>& sizes,
                             const RowName& row_name) {
  if (labels.codec() != spec.codec()) {
    return absl::InvalidArgumentError(
        absl::StrCat("asked for ", CodecName(spec.codec()), ", got ", CodecName(labels.codec())));
  }
  const int64_t rows = RowsOf(sizes);
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return DecodeTopK(labels, rows, spec.k(), output.width, row_name);
    case v1::CODEC_SAMPLED:
      return DecodeSampled(labels, rows, spec.draws(), output.width, row_name);
    case v1::CODEC_CLASSES:
      return DecodeClasses(labels, rows, output.width, row_name);
    case v1::CODEC_SCORES: {
      std::vector<int64_t> numbers_of_rows;
      for (const RecordSize& size : sizes) {
        numbers_of_rows.insert(numbers_of_rows.end(), size.rows, size.scores_per_row);
      }
      return DecodeScores(labels, numbers_of_rows, row_name);
    }
    default: {
      Array array;
      array.width = WidthOf(spec.codec(), output);
      ASSIGN_OR_RETURN(array.numbers, HasTensor(spec.codec())
                                          ? DecodeDense(labels, numbers, rows, array.width, row_name)
                                          : DecodeDense(labels, rows, array.width, row_name));
      return array;
    }
  }
}

absl::StatusOr<v1::SoftLabels> Encode(const Array& array, const v1::LabelSpec& spec, const Output& output, int64_t rows,
                                      const RowName& row_name) {
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return EncodeTopK(array, rows, spec.k(), output.width, row_name);
    case v1::CODEC_SAMPLED:
      return EncodeSampled(array, rows, spec.draws(), output.width, row_name);
    case v1::CODEC_CLASSES:
      return EncodeClasses(array, output.width, row_name);
    case v1::CODEC_SCORES:
      return EncodeScores(array, row_name);
    default:
      return EncodeDense(spec.codec(), array.numbers, rows, WidthOf(spec.codec(), output), row_name);
  }
}

absl::StatusOr<std::vector<v1::SoftLabels>> Cut(const v1::SoftLabels& labels, const std::vector<RecordSize>& sizes) {
  const bool sampled = labels.codec() == v1::CODEC_SAMPLED;
  const bool tensor = HasTensor(labels.codec());
  if (tensor && labels.dense().shape_size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat("labels of ", labels.dense().shape_size(), " dimensions"));
  }
  std::string_view left = tensor ? labels.dense().data() : labels.packed();
  int64_t first = 0;
  std::vector<v1::SoftLabels> parts;
  for (const RecordSize& size : sizes) {
    const int64_t bytes = sampled ? SampledBytes(labels, first, size.rows) : size.bytes;
    if (bytes < 0 || bytes > static_cast<int64_t>(left.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("the labels end in the ", parts.size() + 1, "th of ", sizes.size(), " records"));
    }
    v1::SoftLabels& part = parts.emplace_back();
    part.set_codec(labels.codec());
    if (tensor) {
      *part.mutable_dense()->mutable_shape() = labels.dense().shape();
      part.mutable_dense()->set_dtype(labels.dense().dtype());
      part.mutable_dense()->set_shape(0, size.rows);
      part.mutable_dense()->set_data(left.data(), bytes);
    } else {
      part.set_packed(left.data(), bytes);
    }
    if (sampled) {
      const auto begin = labels.row_bytes().begin() + first;
      part.mutable_row_bytes()->Assign(begin, begin + size.rows);
    }
    left.remove_prefix(bytes);
    first += size.rows;
  }
  if (!left.empty()) return absl::InvalidArgumentError(absl::StrCat(left.size(), " bytes come after the last record"));
  return parts;
}

absl::Status Append(const v1::SoftLabels& part, v1::SoftLabels* all) {
  if (all->codec() == v1::CODEC_UNSPECIFIED) {
    *all = part;
    return absl::OkStatus();
  }
  const v1::Tensor &from = part.dense(), &to = all->dense();
  const bool tensor = HasTensor(part.codec());
  const bool alike =
      part.codec() == all->codec() && (!tensor || (from.dtype() == to.dtype() && from.shape_size() == 2 &&
                                                   to.shape_size() == 2 && from.shape(1) == to.shape(1)));
  if (!alike) return absl::InvalidArgumentError("the parts of an answer are of different codecs or widths");
  if (tensor) {
    all->mutable_dense()->set_shape(0, to.shape(0) + from.shape(0));
    all->mutable_dense()->mutable_data()->append(from.data());
  } else {
    all->mutable_packed()->append(part.packed());
  }
  all->mutable_row_bytes()->MergeFrom(part.row_bytes());
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
