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
  std::vector<std::string> argv = {absl::StrCat(folder, "/polystill-", role)};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return BecomeProgram(argv);
}

absl::Status BecomeProgram(const std::vector<std::string>& argv) {
  std::vector<char*> words;
  for (const std::string& argument : argv) words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  ::execv(words[0], words.data());
  return FileError(errno, argv[0], "start");
}

}  // namespace polystill::cli
