#include "cli/siblings.h"

#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "runtime/files.h"

namespace polystill::cli {

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
