#include "soft_labels/top_k.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/bits.h"
#include "soft_labels/half.h"

namespace polystill::soft_labels {
namespace {

constexpr float kLeastHalf = -65504.0f;
constexpr int64_t kTailBytes = 4;

// Bits of the largest id.
int IdBits(int64_t vocabulary) { return std::max<int>(1, std::bit_width(static_cast<uint64_t>(vocabulary - 1))); }

// `numbers`: k log-probabilities and the tail.
absl::Status CheckRow(const int32_t* ids, const float* numbers, int64_t k, int64_t vocabulary) {
  int64_t before = -1;
  for (int64_t i = 0; i < k; ++i) {
    if (ids[i] <= before || ids[i] >= vocabulary) {
      return absl::InvalidArgumentError(
          absl::StrCat("id ", ids[i], " comes after ", before, "; ids ascend, each once, below ", vocabulary));
    }
    before = ids[i];
    if (!(numbers[i] <= 0 && std::isfinite(numbers[i]))) {
      return absl::InvalidArgumentError(
          absl::StrCat("id ", ids[i], " has the log-probability ", numbers[i], ", which is none"));
    }
  }
  const float tail = numbers[k];
  const bool none_left = k == vocabulary;
  if (none_left ? tail != -std::numeric_limits<float>::infinity() : !(tail <= 0 && std::isfinite(tail))) {
    return absl::InvalidArgumentError(
        absl::StrCat("the log of the rest is ", tail, none_left ? ", but nothing is left" : ", which is none"));
  }
  return absl::OkStatus();
}

}  // namespace

int64_t TopKRowBytes(int64_t k, int64_t vocabulary) { return (k * IdBits(vocabulary) + 7) / 8 + 2 * k + kTailBytes; }

absl::StatusOr<v1::SoftLabels> EncodeTopK(const Array& top, int64_t rows, int64_t k, int64_t vocabulary,
                                          const RowName& row_name) {
  if (static_cast<int64_t>(top.ids.size()) != rows * k || static_cast<int64_t>(top.numbers.size()) != rows * (k + 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat(top.ids.size(), " ids and ", top.numbers.size(), " numbers are not ", rows, " rows of ", k));
  }
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_TOP_K);
  std::string& packed = *labels.mutable_packed();
  packed.reserve(rows * TopKRowBytes(k, vocabulary));
  const int id_bits = IdBits(vocabulary);
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* ids = top.ids.data() + row * k;
    const float* numbers = top.numbers.data() + row * (k + 1);
    const absl::Status status = CheckRow(ids, numbers, k, vocabulary);
    if (!status.ok()) return Annotate(status, NameOf(row, row_name));
    BitWriter writer(&packed);
    for (int64_t i = 0; i < k; ++i) writer.Write(static_cast<uint64_t>(ids[i]), id_bits);
    writer.End();
    for (int64_t i = 0; i < k; ++i) {
      const uint16_t half = FloatToHalf(std::max(numbers[i], kLeastHalf));
      packed.append(reinterpret_cast<const char*>(&half), 2);
    }
    packed.append(reinterpret_cast<const char*>(numbers + k), kTailBytes);
  }
  return labels;
}

absl::StatusOr<Array> DecodeTopK(const v1::SoftLabels& labels, int64_t rows, int64_t k, int64_t vocabulary,
                                 const RowName& row_name) {
  const int64_t row_bytes = TopKRowBytes(k, vocabulary);
  const std::string& packed = labels.packed();
  if (labels.codec() != v1::CODEC_TOP_K || static_cast<int64_t>(packed.size()) != rows * row_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("expected ", rows * row_bytes, " bytes of top_k, got ",
                                                   packed.size(), " of ", v1::Codec_Name(labels.codec())));
  }
  Array top;
  top.width = k + 1;
  top.numbers.resize(rows * (k + 1));
  top.ids.resize(rows * k);
  const int id_bits = IdBits(vocabulary);
  const int64_t id_bytes = row_bytes - 2 * k - kTailBytes;
  for (int64_t row = 0; row < rows; ++row) {
    const char* from = packed.data() + row * row_bytes;
    int32_t* ids = top.ids.data() + row * k;
    float* numbers = top.numbers.data() + row * (k + 1);
    BitReader reader({from, static_cast<size_t>(id_bytes)});
    for (int64_t i = 0; i < k; ++i) ids[i] = static_cast<int32_t>(reader.Read(id_bits));
    if (!reader.AtEnd()) {
      return absl::InvalidArgumentError(absl::StrCat(NameOf(row, row_name), ": its last bits are not 0"));
    }
    for (int64_t i = 0; i < k; ++i) {
      uint16_t half;
      std::memcpy(&half, from + id_bytes + 2 * i, 2);
      numbers[i] = HalfToFloat(half);
    }
    std::memcpy(numbers + k, from + id_bytes + 2 * k, kTailBytes);
    const absl::Status status = CheckRow(ids, numbers, k, vocabulary);
    if (!status.ok()) return Annotate(status, NameOf(row, row_name));
  }
  return top;
}

}  // namespace polystill::soft_labels
