#pragma once

#include <functional>
#include <stop_token>

#include "absl/status/status.h"

namespace polystill::collectives {

// Work that may be stuck in a socket until its time-out, on threads of its own, so that nobody needs to wait for it: a
// join that was given up (a thread and a few sockets), an NCCL communicator that is being aborted. Thread-safe.

// Most that may be under way in a process.
inline constexpr int kMostInBackground = 32;

// Runs `work` on a thread of its own, once fewer than kMostInBackground others run. ABORTED: `interrupt` was requested
// before.
absl::Status RunInBackground(std::function<void()> work, const std::stop_token& interrupt);

// Runs `work` likewise, at once and however many others run.
void RunInBackground(std::function<void()> work);

// How many are under way.
int CountInBackground();

}  // namespace polystill::collectives
