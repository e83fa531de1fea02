#pragma once

#include <cstdint>
#include <string>

namespace polystill::cli {

// The last lines, at most `lines` and 16 KiB, that were written to a log beyond byte `from`; each with "  | " before
// it. Empty when there is nothing, or no such file.
std::string LogTail(const std::string& path, int64_t from, int lines = 12);

}  // namespace polystill::cli
