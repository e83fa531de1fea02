#include "coordinator/address_file.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::coordinator {

absl::Status WriteAddressFile(const std::string& path, const CoordinatorAddress& address) {
  return WriteFileAtomically(path, absl::StrCat(address.address, "\n", address.run_id, "\n"));
}

absl::StatusOr<CoordinatorAddress> ReadAddressFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  if (lines.size() != 2) {
    return absl::DataLossError(absl::StrCat(path, ": is not host:port and, on a second line, the id of the run"));
  }
  return CoordinatorAddress{lines[0], lines[1]};
}

void RemoveAddressFile(const std::string& path, const CoordinatorAddress& own) {
  const absl::StatusOr<CoordinatorAddress> there = ReadAddressFile(path);
  if (!there.ok() || *there != own) return;
  std::error_code gone;
  std::filesystem::remove(path, gone);
}

}  // namespace polystill::coordinator
