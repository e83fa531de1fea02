#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "arrow/filesystem/filesystem.h"

namespace polystill::corpus {

enum class Format { kParquet, kJsonLines };

// One file of a corpus, on any file system that Arrow knows.
struct SourceFile {
  // Absolute local path, or a URI: how the index and the messages call it.
  std::string name;
  // Size in bytes.
  int64_t bytes = 0;
  Format format = Format::kParquet;
  std::shared_ptr<arrow::fs::FileSystem> file_system;
  // Its path within `file_system`.
  std::string path;
};

// The *.parquet and *.jsonl files right inside the folder `path`, sorted by name; hidden ones are left out. Or the one
// file that `path` is. NOT_FOUND (no such path), INVALID_ARGUMENT (no such file in the folder, another kind of file).
absl::StatusOr<std::vector<SourceFile>> ListFiles(const std::string& path);

// Lower-case hex SHA-256 of the file's content. DATA_LOSS when it cannot be read.
absl::StatusOr<std::string> HashFile(const SourceFile& file);

}  // namespace polystill::corpus
