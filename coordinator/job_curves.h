#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "coordinator/event_file.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// The curves of each training, as TensorBoard shows them: <folder>/<job, with - for :>/events.out.tfevents.*, with the
// tags loss, learning_rate, records_per_second, data_wait_seconds, records/LANGUAGE and, with early stopping,
// validation. They are no part of what the run needs: when a write fails that is logged, and no more is written. Not
// thread-safe.
class JobCurves {
 public:
  // `term` tells this process's files from those of earlier ones of the run, `finished` the jobs that they finished.
  JobCurves(std::string folder, int64_t term, std::set<std::string> finished)
      : folder_(std::move(folder)), term_(term), finished_(std::move(finished)) {}

  // `wall_time`: seconds since 1970.
  void Observe(const v1::RunStatus& status, double wall_time);

 private:
  struct Curve {
    std::unique_ptr<EventFile> file;
    // As it was observed last.
    v1::RunStatus::Stage stage;
  };

  absl::Status Open(const v1::RunStatus::Stage& stage, double wall_time, Curve* curve);
  absl::Status Write(const v1::RunStatus::Stage& stage, double wall_time);

  const std::string folder_;
  const int64_t term_;
  const std::set<std::string> finished_;
  std::map<std::string, Curve> curves_;
  bool failed_ = false;
};

}  // namespace polystill::coordinator
