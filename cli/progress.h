#pragma once

#include <string>

#include "polystill/v1/coordinator.pb.h"

namespace polystill::cli {

// Columns of the terminal that standard output is; 80 where it is none.
int TerminalWidth();

// One line on a stage under way, at most `width` columns: bar, steps or records done, records/s, loss, time left,
// how many workers are slow. On a narrow terminal the bar shrinks and the count goes first. `seconds` since it began.
std::string RunningLine(const v1::RunStatus::Stage& stage, double seconds, int width);

// A line for each worker of a training that is much slower than the others, or was left out for that.
std::string WorkerLines(const v1::RunStatus::Stage& stage);

// One line on a finished stage.
std::string FinishedLine(const v1::RunStatus::Stage& stage);

// Turns statuses into what is written to the screen. On a terminal the stage under way has one line that is redrawn in
// place, and a finished stage's line stays; elsewhere each stage gives one line when it is finished.
class ProgressView {
 public:
  explicit ProgressView(bool terminal) : terminal_(terminal) {}

  // `age`: seconds since `status` came; `width`: columns of the terminal.
  std::string Update(const v1::RunStatus& status, double age, int width);
  // Ends a line that is still open, so that something else can be written.
  std::string Close();

 private:
  const bool terminal_;
  // Stages whose last line is written.
  int written_ = 0;
  std::string open_line_;
};

}  // namespace polystill::cli
