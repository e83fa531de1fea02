#pragma once

namespace polystill::cli {

inline constexpr int kExitFine = 0;
// The run failed.
inline constexpr int kExitFailed = 1;
// Wrong usage, or a run file with mistakes.
inline constexpr int kExitUsage = 2;
// Stopped by a signal.
inline constexpr int kExitInterrupted = 130;

}  // namespace polystill::cli
