#include "checkpoint/safetensors.h"

#include <cstring>
#include <set>

#include "checkpoint/safetensors_header.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::checkpoint {
namespace {

constexpr std::pair<at::ScalarType, const char*> kDtypes[] = {
    {at::kFloat, "F32"}, {at::kDouble, "F64"}, {at::kHalf, "F16"}, {at::kBFloat16, "BF16"},
    {at::kLong, "I64"},  {at::kInt, "I32"},    {at::kByte, "U8"},  {at::kBool, "BOOL"},
};

const char* NameOf(at::ScalarType type) {
  for (const auto& [candidate, name] : kDtypes) {
    if (candidate == type) return name;
  }
  return nullptr;
}

at::ScalarType TypeOf(const std::string& dtype) {
  for (const auto& [type, name] : kDtypes) {
    if (dtype == name) return type;
  }
  return at::ScalarType::Undefined;
}

at::Tensor CopyOut(const TensorEntry& entry, std::string_view data) {
  at::Tensor tensor = at::empty(entry.shape, at::TensorOptions(TypeOf(entry.dtype)));
  if (entry.end > entry.begin) std::memcpy(tensor.data_ptr(), data.data() + entry.begin, entry.end - entry.begin);
  return tensor;
}

absl::StatusOr<std::vector<TensorEntry>> Layout(const NamedTensors& tensors) {
  std::vector<TensorEntry> entries;
  std::set<std::string> names = {"__metadata__"};
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const char* dtype = tensor.defined() ? NameOf(tensor.scalar_type()) : nullptr;
    if (dtype == nullptr || static_cast<size_t>(tensor.dim()) > kMaxDimensions) {
      return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' has a type or shape that is not stored"));
    }
    if (!names.insert(name).second)
      return absl::InvalidArgumentError(absl::StrCat("two tensors are named '", name, "'"));
    const uint64_t end = offset + tensor.nbytes();
    entries.push_back({name, dtype, tensor.sizes().vec(), offset, end});
    offset = end;
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::string> FormatSafetensors(const NamedTensors& tensors,
                                              const std::map<std::string, std::string>& metadata) {
  ASSIGN_OR_RETURN(const std::vector<TensorEntry> entries, Layout(tensors));
  std::string content = FormatHeader(entries, metadata);
  content.reserve(content.size() + (entries.empty() ? 0 : entries.back().end));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
    content.append(static_cast<const char*>(plain.data_ptr()), plain.nbytes());
  }
  return content;
}

absl::StatusOr<NamedTensors> ParseSafetensors(std::string_view content, const std::string& file) {
  ASSIGN_OR_RETURN(const SafetensorsHeader header, ParseHeader(content, file));
  const std::string_view data = content.substr(header.data_start);
  NamedTensors tensors;
  for (const TensorEntry& entry : header.tensors) {
    try {
      tensors.emplace_back(entry.name, CopyOut(entry, data));
    } catch (const c10::Error& error) {
      return absl::DataLossError(absl::StrCat(file, ": tensor '", entry.name, "': ", error.what_without_backtrace()));
    }
  }
  return tensors;
}

absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata) {
  absl::StatusOr<std::string> content = FormatSafetensors(tensors, metadata);
  if (!content.ok()) return Annotate(content.status(), path);
  return WriteFileAtomically(path, *content);
}

absl::StatusOr<NamedTensors> ReadSafetensors(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string content, ReadFile(path, INT64_MAX));
  return ParseSafetensors(content, path);
}

}  // namespace polystill::checkpoint
