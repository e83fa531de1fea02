#include "soft_labels/sampled.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/bits.h"

namespace polystill::soft_labels {
namespace {

// entropy, then a byte of the two parameters: Rice's in the low five bits, exp-Golomb's in the high three.
constexpr int64_t kEntropyBytes = 4;
constexpr int64_t kHeaderBytes = kEntropyBytes + 1;
constexpr int kMostRice = 24;
constexpr int kMostExpGolomb = 7;

struct Parameters {
  int rice = 0;
  int exp_golomb = 0;
  int64_t bits = 0;
};

// What is written of the distance to the id before.
uint64_t Gap(std::span<const int32_t> ids, size_t i) {
  return static_cast<uint64_t>(i == 0 ? ids[0] : ids[i] - ids[i - 1] - 1);
}

// Bits of all distances by the Rice code with parameter r.
int64_t RiceBitsOf(std::span<const int32_t> ids, int r) {
  int64_t bits = 0;
  for (size_t i = 0; i < ids.size(); ++i) bits += RiceBits(Gap(ids, i), r);
  return bits;
}

int64_t ExpGolombBitsOf(std::span<const int32_t> counts, int m) {
  int64_t bits = 0;
  for (const int32_t count : counts) bits += ExpGolombBits(static_cast<uint64_t>(count) - 1, m);
  return bits;
}

// The parameters of fewest bits, of equal ones the least. The bits by a Rice code are convex in its parameter, so the
// search ends where they begin to grow.
Parameters BestParameters(std::span<const int32_t> ids, std::span<const int32_t> counts) {
  Parameters best;
  int64_t rice_bits = RiceBitsOf(ids, 0);
  for (int r = 1; r <= kMostRice; ++r) {
    const int64_t bits = RiceBitsOf(ids, r);
    if (bits > rice_bits) break;
    if (bits < rice_bits) best.rice = r, rice_bits = bits;
  }
  int64_t count_bits = ExpGolombBitsOf(counts, 0);
  for (int m = 1; m <= kMostExpGolomb; ++m) {
    const int64_t bits = ExpGolombBitsOf(counts, m);
    if (bits < count_bits) best.exp_golomb = m, count_bits = bits;
  }
  best.bits = rice_bits + count_bits;
  return best;
}

absl::Status CheckEntropy(float entropy) {
  if (entropy >= 0 && std::isfinite(entropy)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the entropy ", entropy, " is none"));
}

absl::Status CheckRow(std::span<const int32_t> ids, std::span<const int32_t> counts, int32_t draws,
                      int64_t vocabulary) {
  int64_t before = -1, sum = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] <= before || ids[i] >= vocabulary || counts[i] < 1) {
      return absl::InvalidArgumentError(absl::StrCat("id ", ids[i], " comes ", counts[i], " times after ", before,
                                                     "; ids ascend, each once, below ", vocabulary));
    }
    before = ids[i];
    sum += counts[i];
  }
  if (sum == draws) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("its counts add up to ", sum, ", not to ", draws, " draws"));
}

void WriteRow(std::span<const int32_t> ids, std::span<const int32_t> counts, float entropy, std::string* packed) {
  const Parameters parameters = BestParameters(ids, counts);
  packed->append(reinterpret_cast<const char*>(&entropy), kEntropyBytes);
  packed->push_back(static_cast<char>(parameters.rice | parameters.exp_golomb << 5));
  BitWriter writer(packed);
  for (size_t i = 0; i < ids.size(); ++i) {
    writer.WriteRice(Gap(ids, i), parameters.rice);
    writer.WriteExpGolomb(static_cast<uint64_t>(counts[i]) - 1, parameters.exp_golomb);
  }
  writer.End();
}

// Appends a row to `drawn`.
absl::Status ReadRow(std::string_view bytes, int32_t draws, int64_t vocabulary, Array* drawn) {
  if (static_cast<int64_t>(bytes.size()) < kHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat("has ", bytes.size(), " bytes, less than a row"));
  }
  float& entropy = drawn->numbers.emplace_back();
  std::memcpy(&entropy, bytes.data(), kEntropyBytes);
  RETURN_IF_ERROR(CheckEntropy(entropy));
  const auto parameters = static_cast<uint8_t>(bytes[kEntropyBytes]);
  const int rice = parameters & 31, exp_golomb = parameters >> 5;
  if (rice > kMostRice) return absl::InvalidArgumentError(absl::StrCat("the Rice parameter ", rice, " is none"));
  BitReader reader(bytes.substr(kHeaderBytes));
  const auto most_gap = static_cast<uint64_t>(vocabulary);
  int64_t next = 0, left = draws;
  while (left > 0) {
    const int64_t id = next + static_cast<int64_t>(reader.ReadRice(rice, most_gap));
    const int64_t count = 1 + static_cast<int64_t>(reader.ReadExpGolomb(exp_golomb));
    if (reader.overrun()) return absl::InvalidArgumentError(absl::StrCat("ends with ", left, " draws to come"));
    if (id >= vocabulary || count > left) {
      return absl::InvalidArgumentError(absl::StrCat("id ", id, " comes ", count, " times, with ", left,
                                                     " draws to come and ids below ", vocabulary));
    }
    drawn->ids.push_back(static_cast<int32_t>(id));
    drawn->counts.push_back(static_cast<int32_t>(count));
    next = id + 1;
    left -= count;
  }
  if (!reader.AtEnd()) return absl::InvalidArgumentError("has more bytes than its draws");
  return absl::OkStatus();
}

}  // namespace

int64_t SampledRowBytes(std::span<const int32_t> ids, std::span<const int32_t> counts) {
  return kHeaderBytes + (BestParameters(ids, counts).bits + 7) / 8;
}

int64_t MostSampledRowBytes(int32_t draws, int64_t vocabulary) {
  // With r = ceil(log2(vocabulary / draws)) the unary parts of the distances have at most vocabulary / 2^r <= draws
  // ones in all, and of each id there is a zero, r bits, and a count: c draws take at most 2 c bits (2 log2(c) + 1).
  int64_t r = 0;
  while (int64_t{draws} << r < vocabulary) ++r;
  return kHeaderBytes + (draws * (4 + r) + 7) / 8;
}

absl::StatusOr<v1::SoftLabels> EncodeSampled(const Array& drawn, int64_t rows, int32_t draws, int64_t vocabulary,
                                             const RowName& row_name) {
  if (static_cast<int64_t>(drawn.numbers.size()) != rows || static_cast<int64_t>(drawn.offsets.size()) != rows + 1 ||
      drawn.counts.size() != drawn.ids.size()) {
    return absl::InvalidArgumentError(absl::StrCat(drawn.numbers.size(), " entropies, ", drawn.offsets.size(),
                                                   " offsets, ", drawn.ids.size(), " ids and ", drawn.counts.size(),
                                                   " counts are not ", rows, " rows"));
  }
  v1::SoftLabels labels;
  labels.set_codec(v1::CODEC_SAMPLED);
  std::string& packed = *labels.mutable_packed();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t first = drawn.offsets[row], count = drawn.offsets[row + 1] - first;
    const std::span<const int32_t> ids(drawn.ids.data() + first, count), counts(drawn.counts.data() + first, count);
    absl::Status status = CheckRow(ids, counts, draws, vocabulary);
    status.Update(CheckEntropy(drawn.numbers[row]));
    if (!status.ok()) return Annotate(status, NameOf(row, row_name));
    const size_t begin = packed.size();
    WriteRow(ids, counts, drawn.numbers[row], &packed);
    labels.add_row_bytes(static_cast<uint32_t>(packed.size() - begin));
  }
  return labels;
}

absl::StatusOr<Array> DecodeSampled(const v1::SoftLabels& labels, int64_t rows, int32_t draws, int64_t vocabulary,
                                    const RowName& row_name) {
  if (labels.codec() != v1::CODEC_SAMPLED || labels.row_bytes_size() != rows) {
    return absl::InvalidArgumentError(absl::StrCat("expected ", rows, " rows of sampled, got ", labels.row_bytes_size(),
                                                   " of ", v1::Codec_Name(labels.codec())));
  }
  Array drawn;
  drawn.width = 1;
  drawn.offsets.push_back(0);
  std::string_view left = labels.packed();
  for (int64_t row = 0; row < rows; ++row) {
    const size_t bytes = labels.row_bytes(static_cast<int>(row));
    absl::Status status =
        bytes <= left.size()
            ? ReadRow(left.substr(0, bytes), draws, vocabulary, &drawn)
            : absl::InvalidArgumentError(absl::StrCat("has ", bytes, " bytes, but ", left.size(), " are left"));
    if (!status.ok()) return Annotate(status, NameOf(row, row_name));
    drawn.offsets.push_back(static_cast<int64_t>(drawn.ids.size()));
    left.remove_prefix(bytes);
  }
  if (!left.empty()) return absl::InvalidArgumentError(absl::StrCat(left.size(), " bytes come after the last row"));
  return drawn;
}

}  // namespace polystill::soft_labels
