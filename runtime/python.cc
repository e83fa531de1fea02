#include "runtime/python.h"

#include <cstdlib>
#include <filesystem>

namespace polystill {
namespace {

namespace fs = std::filesystem;

// `place` in `folder` or the nearest folder around it that has it; empty when none has.
fs::path FindAround(const fs::path& folder, const fs::path& place) {
  std::error_code error;
  for (fs::path around = folder;; around = around.parent_path()) {
    if (fs::exists(around / place, error)) return around / place;
    if (around == around.parent_path()) return {};
  }
}

}  // namespace

std::string PythonInterpreter(const std::string& programs) {
  const char* const named = std::getenv("POLYSTILL_PYTHON");
  if (named != nullptr && *named != '\0') return named;
  const fs::path own = FindAround(programs, ".venv/bin/python");
  return own.empty() ? "python3" : own.string();
}

std::string PythonModules(const std::string& programs, const std::string& package) {
  for (const char* place : {"share/polystill/python", "python"}) {
    const fs::path found = FindAround(programs, fs::path(place) / package);
    if (!found.empty()) return found.parent_path().string();
  }
  return "";
}

}  // namespace polystill
