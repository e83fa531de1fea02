#pragma once

#include <ATen/ATen.h>

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace polystill::checkpoint {

// Tensors by name, in a fixed order; names are unique.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Tensors as the bytes of a safetensors file (safetensors_header.h), in the given order. Of any layout and device, with
// or without gradients; float32, float64, float16, bfloat16, int64, int32, uint8 or bool. INVALID_ARGUMENT names a
// tensor of another type, of more than 16 dimensions or whose name is taken.
absl::StatusOr<std::string> FormatSafetensors(const NamedTensors& tensors,
                                              const std::map<std::string, std::string>& metadata = {});

// The tensors of a file's content, copied to the CPU, in the order of their bytes. Trusts nothing in it: DATA_LOSS
// names `file` and the tensor.
absl::StatusOr<NamedTensors> ParseSafetensors(std::string_view content, const std::string& file);

// The same, from and to a file; it is written atomically.
absl::Status WriteSafetensors(const std::string& path, const NamedTensors& tensors,
                              const std::map<std::string, std::string>& metadata = {});
absl::StatusOr<NamedTensors> ReadSafetensors(const std::string& path);

}  // namespace polystill::checkpoint
