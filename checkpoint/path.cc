#include "checkpoint/path.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace polystill::checkpoint {
namespace {

constexpr char kStep[] = "step-";
constexpr char kGeneration[] = "-gen-";
constexpr char kTemporary[] = ".tmp-";

}  // namespace

std::string CheckpointPath(const std::string& folder, int64_t step, int64_t generation) {
  return absl::StrFormat("%s/%s%09d%s%d", folder, kStep, step, kGeneration, generation);
}

std::optional<CheckpointName> ParseCheckpointName(std::string_view name) {
  absl::string_view rest(name.data(), name.size());
  if (absl::ConsumePrefix(&rest, ".")) {
    const auto end = rest.find(kTemporary);
    if (end == absl::string_view::npos) return std::nullopt;
    rest = rest.substr(0, end);
  }
  if (!absl::ConsumePrefix(&rest, kStep)) return std::nullopt;
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(rest, absl::MaxSplits(kGeneration, 1));
  CheckpointName parsed;
  if (!absl::SimpleAtoi(parts.first, &parsed.step) || !absl::SimpleAtoi(parts.second, &parsed.generation)) {
    return std::nullopt;
  }
  return parsed;
}

}  // namespace polystill::checkpoint
