#pragma once

#include <ostream>
#include <string>

namespace polystill::cli {

// Where the run in `folder` stands, in some lines, or as JSON (RunStatus, proto/polystill/v1/coordinator.proto): from
// its coordinator while there is one, else from what that wrote last. Returns the exit code: kExitFine whatever the
// run's state is, kExitUsage when the folder holds no run.
int ShowStatus(const std::string& folder, bool json, std::ostream& out, std::ostream& err);

// Ends the run in `folder` at its next step, with a checkpoint, and waits until its coordinator has left. Returns the
// exit code: kExitFine when it is stopped (or done meanwhile), kExitUsage when the folder holds no run, kExitFailed
// when none runs there or it failed.
int StopRun(const std::string& folder, std::ostream& out, std::ostream& err);

// Tells the run in `folder` to have so many workers from its next step boundary on. Returns the exit code: kExitFine
// when the coordinator takes the order, kExitUsage when the folder holds no run or the number is not one that the run
// file allows, kExitFailed when no run is under way there.
int ScaleRun(const std::string& folder, int workers, std::ostream& out, std::ostream& err);

}  // namespace polystill::cli
