#pragma once

#include <ostream>
#include <string>
#include <vector>

namespace polystill::cli {

// Validates a run file without running it. The exit code: 0, or 2 with every mistake on `err`.
int CheckRunFile(const std::string& path, const std::vector<std::string>& settings, std::ostream& out,
                 std::ostream& err);

// Prints the reference of all keys of a run file.
int PrintKeys(std::ostream& out);

}  // namespace polystill::cli
