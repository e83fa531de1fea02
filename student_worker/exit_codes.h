#pragma once

namespace polystill::student_worker {

// The run is done.
inline constexpr int kExitDone = 0;
// A job failed here, or the coordinator was lost.
inline constexpr int kExitFailed = 1;
// The run was stopped, or failed elsewhere, and may go on: a supervisor starts the worker again, so that it waits for
// the coordinator. EX_TEMPFAIL of sysexits.h.
inline constexpr int kExitRunNotDone = 75;

}  // namespace polystill::student_worker
