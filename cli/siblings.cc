#include "cli/siblings.h"

#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"

namespace polystill::cli {

absl::StatusOr<std::string> ProgramFolder() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return FileError(error.value(), "/proc/self/exe", "read");
  return self.parent_path().string();
}

absl::Status BecomeSibling(const std::string& folder, const std::string& role,
                           const std::vector<std::string>& arguments) {
  const std::string program = absl::StrCat(folder, "/polystill-", role);
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::execv(program.c_str(), argv.data());
  return FileError(errno, program, "start");
}

}  // namespace polystill::cli
