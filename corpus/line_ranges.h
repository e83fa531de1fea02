#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "arrow/io/interfaces.h"

namespace polystill::corpus {

// Whole lines of a file.
struct LineRange {
  // In bytes.
  int64_t offset = 0;
  int64_t length = 0;
  // Lines that are not blank; at least 1.
  int64_t lines = 0;
};

// Cuts a file into ranges of `lines_per_range` lines, fewer where they would take over `bytes_per_range` bytes. The
// last line may lack its end. INVALID_ARGUMENT when one line alone takes over 1 GiB, DATA_LOSS when reading fails; both
// name `name`.
absl::StatusOr<std::vector<LineRange>> SplitLines(arrow::io::RandomAccessFile& file, const std::string& name,
                                                  int64_t lines_per_range = 10'000,
                                                  int64_t bytes_per_range = int64_t{64} << 20);

}  // namespace polystill::corpus
