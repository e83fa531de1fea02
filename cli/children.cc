#include "cli/children.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/log_tail.h"
#include "runtime/files.h"
#include "runtime/status.h"

namespace polystill::cli {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPoll{50};

}  // namespace

Children::~Children() {
  SignalAll(SIGKILL);
  while (!all_ended()) {
    signals_->Wait(kPoll);
    Poll();
  }
}

absl::Status Children::Start(const Launch& launch, bool append) {
  ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start(OptionsOf(launch, append)));
  children_.push_back(std::move(child));
  return absl::OkStatus();
}

absl::Status Children::Restart(ChildProcess* child, const Launch& launch) {
  ASSIGN_OR_RETURN(*child, ChildProcess::Start(OptionsOf(launch, /*append=*/true)));
  std::erase(ended_, child);
  return absl::OkStatus();
}

ChildProcess::Options Children::OptionsOf(const Launch& launch, bool append) const {
  return {launch.name, launch.argv, absl::StrCat(log_folder_, "/", launch.name, ".log"), append};
}

void Children::Poll() {
  for (ChildProcess& child : children_) {
    if (child.Poll().has_value() && !HasEnded(child.name())) ended_.push_back(&child);
  }
}

int Children::CountLeft(const std::string& prefix) const {
  return static_cast<int>(std::count_if(children_.begin(), children_.end(), [&](const ChildProcess& child) {
    return absl::StartsWith(child.name(), prefix) && !child.exit_status().has_value();
  }));
}

bool Children::HasEnded(const std::string& name) const {
  return std::any_of(ended_.begin(), ended_.end(), [&](const ChildProcess* child) { return child->name() == name; });
}

absl::StatusOr<std::string> Children::AwaitAddress(const std::string& name, const std::string& file,
                                                   std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  while (!std::filesystem::exists(file)) {
    Poll();
    if (HasEnded(name)) return absl::UnavailableError(absl::StrCat(name, " did not start"));
    if (Clock::now() >= deadline) return absl::DeadlineExceededError(absl::StrCat(name, " tells no address"));
    if (AsksToEnd(signals_->Wait(kPoll))) return absl::CancelledError("stopped");
  }
  const absl::StatusOr<std::string> address = ReadFile(file);
  std::error_code gone;
  std::filesystem::remove(file, gone);
  RETURN_IF_ERROR(address.status());
  return std::string(absl::StripAsciiWhitespace(*address));
}

bool Children::WaitForAll(std::chrono::milliseconds limit) {
  return WaitUntil([this] { return all_ended(); }, limit);
}

bool Children::WaitFor(const std::string& name, std::chrono::milliseconds limit) {
  return WaitUntil([&] { return HasEnded(name); }, limit);
}

bool Children::WaitUntil(const std::function<bool()>& reached, std::chrono::milliseconds limit) {
  const Clock::time_point deadline = Clock::now() + limit;
  for (Poll(); !reached(); Poll()) {
    if (Clock::now() >= deadline) return false;
    if (AsksToEnd(signals_->Wait(kPoll))) {
      hurried_ = true;
      return false;
    }
  }
  return true;
}

void Children::EndAll(std::chrono::milliseconds patience) {
  if (!hurried_) SignalAll(SIGTERM);
  if (hurried_ || !WaitForAll(patience)) SignalAll(SIGKILL);
}

void Children::SignalAll(int signal) {
  Poll();
  for (ChildProcess& child : children_) child.Signal(signal);
}

std::string Obituary(ChildProcess* child) {
  const std::string tail = LogTail(child->log(), child->log_start());
  const std::string what = absl::StrCat(child->name(), " ", child->Poll().value_or("still runs"));
  return tail.empty() ? absl::StrCat(what, "; its log is empty\n")
                      : absl::StrCat(what, "; end of ", child->log(), ":\n", tail);
}

}  // namespace polystill::cli
