#include "checkpoint/safetensors_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "runtime/status.h"

namespace polystill::checkpoint {
namespace {

using nlohmann::json;

constexpr char kMetadata[] = "__metadata__";
constexpr size_t kLengthBytes = 8;
static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

absl::Status Torn(const std::string& file, const std::string& what) {
  return absl::DataLossError(absl::StrCat(file, ": ", what));
}

// Whether `value` is an integer in [0, 2^63).
bool IsSize(const json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

// The error of one tensor's entry without the file's name; empty when all is well.
std::string ReadEntry(const json& value, TensorEntry* entry) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") || !value.contains("data_offsets")) {
    return "its entry needs dtype, shape and data_offsets";
  }
  const json& dtype = value["dtype"];
  const uint64_t element = dtype.is_string() ? ElementBytes(dtype.get<std::string>()) : 0;
  if (element == 0)
    return absl::StrCat("dtype ", dtype.dump(-1, ' ', true, json::error_handler_t::replace),
                        " is not one of F32, F64, F16, BF16, I64, I32, U8, BOOL");
  entry->dtype = dtype.get<std::string>();
  const json& shape = value["shape"];
  if (!shape.is_array() || shape.size() > kMaxDimensions || !std::all_of(shape.begin(), shape.end(), IsSize)) {
    return "shape must be a list of at most 16 sizes";
  }
  uint64_t bytes = element;
  for (const json& size : shape) {
    entry->shape.push_back(size.get<int64_t>());
    if (__builtin_mul_overflow(bytes, size.get<uint64_t>(), &bytes)) return "shape is too large";
  }
  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !IsSize(offsets[0]) || !IsSize(offsets[1])) {
    return "data_offsets must be two sizes";
  }
  entry->begin = offsets[0].get<uint64_t>();
  entry->end = offsets[1].get<uint64_t>();
  if (entry->end < entry->begin) return "data_offsets end before they begin";
  if (entry->end - entry->begin != bytes) {
    return absl::StrCat("data_offsets hold ", entry->end - entry->begin, " bytes, its shape needs ", bytes);
  }
  return "";
}

absl::Status ReadMetadata(const json& value, const std::string& file, std::map<std::string, std::string>* metadata) {
  if (!value.is_object()) return Torn(file, "__metadata__ is not a map of texts");
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) return Torn(file, "__metadata__ is not a map of texts");
    (*metadata)[key] = text.get<std::string>();
  }
  return absl::OkStatus();
}

// The tensors, sorted by offset, must fill [0, data_bytes) without overlap or hole.
absl::Status CheckCover(const std::vector<TensorEntry>& tensors, uint64_t data_bytes, const std::string& file) {
  uint64_t expected = 0;
  for (const TensorEntry& tensor : tensors) {
    if (tensor.end > data_bytes) {
      return Torn(file, absl::StrCat("tensor '", tensor.name, "' ends at byte ", tensor.end,
                                     " of the data, the file has ", data_bytes, "; the file is cut short"));
    }
    if (tensor.begin != expected) {
      return Torn(file, absl::StrCat("tensor '", tensor.name, "' begins at byte ", tensor.begin,
                                     " of the data, not at ", expected, ": tensors overlap or leave a hole"));
    }
    expected = tensor.end;
  }
  if (expected != data_bytes) {
    return Torn(file, absl::StrCat(data_bytes - expected, " bytes after the last tensor belong to none"));
  }
  return absl::OkStatus();
}

absl::StatusOr<json> ReadJson(std::string_view content, const std::string& file) {
  if (content.size() < kLengthBytes) return Torn(file, "is shorter than a safetensors header");
  uint64_t length = 0;
  std::memcpy(&length, content.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > content.size() - kLengthBytes) {
    return Torn(file, absl::StrCat("its header claims ", length, " bytes; the file has ", content.size(),
                                   ", a header at most ", kMaxHeaderBytes));
  }
  const std::string_view text = content.substr(kLengthBytes, length);
  json header = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) return Torn(file, "its header is not a JSON object");
  return header;
}

}  // namespace

uint64_t ElementBytes(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64") return 8;
  if (dtype == "F32" || dtype == "I32") return 4;
  if (dtype == "F16" || dtype == "BF16") return 2;
  if (dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

absl::StatusOr<SafetensorsHeader> ParseHeader(std::string_view content, const std::string& file) {
  ASSIGN_OR_RETURN(const json entries, ReadJson(content, file));
  SafetensorsHeader header;
  uint64_t length = 0;
  std::memcpy(&length, content.data(), kLengthBytes);
  header.data_start = kLengthBytes + length;
  for (const auto& [name, value] : entries.items()) {
    if (name == kMetadata) {
      RETURN_IF_ERROR(ReadMetadata(value, file, &header.metadata));
      continue;
    }
    TensorEntry entry;
    entry.name = name;
    const std::string error = ReadEntry(value, &entry);
    if (!error.empty()) return Torn(file, absl::StrCat("tensor '", name, "': ", error));
    header.tensors.push_back(std::move(entry));
  }
  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  RETURN_IF_ERROR(CheckCover(header.tensors, content.size() - header.data_start, file));
  return header;
}

std::string FormatHeader(const std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json entries = nlohmann::ordered_json::object();
  if (!metadata.empty()) entries[kMetadata] = metadata;
  for (const TensorEntry& tensor : tensors) {
    entries[tensor.name] = {
        {"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = entries.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string head(kLengthBytes, '\0');
  std::memcpy(head.data(), &length, kLengthBytes);
  return head + text;
}

}  // namespace polystill::checkpoint
