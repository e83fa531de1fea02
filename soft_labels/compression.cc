#include "soft_labels/compression.h"

#include <zstd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace polystill::soft_labels {
namespace {

constexpr int kFast = 1;  // zstd's level

std::string* PayloadOf(v1::SoftLabels* labels) {
  return labels->has_dense() ? labels->mutable_dense()->mutable_data() : labels->mutable_packed();
}

}  // namespace

void Compress(v1::SoftLabels* labels) {
  std::string& payload = *PayloadOf(labels);
  if (payload.empty()) return;
  std::string frame(ZSTD_compressBound(payload.size()), '\0');
  const size_t bytes = ZSTD_compress(frame.data(), frame.size(), payload.data(), payload.size(), kFast);
  if (ZSTD_isError(bytes) != 0 || bytes >= payload.size()) return;
  frame.resize(bytes);
  frame.shrink_to_fit();
  labels->set_uncompressed_bytes(static_cast<int64_t>(payload.size()));
  payload = std::move(frame);
}

absl::Status Decompress(int64_t most_bytes, v1::SoftLabels* labels) {
  const int64_t bytes = labels->uncompressed_bytes();
  if (bytes == 0) return absl::OkStatus();
  if (bytes < 0 || bytes > most_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a compressed payload of ", bytes, " bytes, at most ", most_bytes, " were expected"));
  }
  std::string& frame = *PayloadOf(labels);
  std::string payload(static_cast<size_t>(bytes), '\0');
  const size_t got = ZSTD_decompress(payload.data(), payload.size(), frame.data(), frame.size());
  if (ZSTD_isError(got) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("a compressed payload is torn: ", ZSTD_getErrorName(got)));
  }
  if (got != payload.size()) {
    return absl::InvalidArgumentError(absl::StrCat("a compressed payload holds ", got, " bytes, not ", bytes));
  }
  frame = std::move(payload);
  labels->clear_uncompressed_bytes();
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
