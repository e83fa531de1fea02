#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace polystill::checkpoint {

// The head of a safetensors file (https://huggingface.co/docs/safetensors):
//
//   bytes 0-7        N, the header's length, unsigned, little-endian
//   bytes 8-(7+N)    JSON: {"__metadata__": {key: text}, NAME: {"dtype", "shape", "data_offsets": [begin, end]}, ...},
//                    padded with spaces
//   the rest         the tensors' bytes, row-major, little-endian; offsets count from here
//
// This file knows the format and no tensor library.

// The header may not be longer than this; the format's own bound is 100 MB.
inline constexpr uint64_t kMaxHeaderBytes = 16 << 20;
inline constexpr size_t kMaxDimensions = 16;

struct TensorEntry {
  std::string name;
  // "F32", "F64", "F16", "BF16", "I64", "I32", "U8" or "BOOL".
  std::string dtype;
  std::vector<int64_t> shape;
  // Bytes [begin, end) after the header.
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  // In the order of their bytes.
  std::vector<TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  // Where the tensors' bytes begin in the file.
  uint64_t data_start = 0;
};

// Bytes of one element; 0 for a dtype that is not read here.
uint64_t ElementBytes(std::string_view dtype);

// Parses and checks the head of a whole file: every tensor lies inside the file, has the bytes that its shape and dtype
// need, and the tensors fill the data without overlap or hole. DATA_LOSS names `file` and the tensor.
absl::StatusOr<SafetensorsHeader> ParseHeader(std::string_view content, const std::string& file);

// The head for tensors whose offsets are set, with its length; padded so that the data starts at a multiple of 8.
std::string FormatHeader(const std::vector<TensorEntry>& tensors, const std::map<std::string, std::string>& metadata);

}  // namespace polystill::checkpoint
