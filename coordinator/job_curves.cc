#include "coordinator/job_curves.h"

#include <spdlog/spdlog.h>

#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

// Trainings alone have a learning rate.
bool IsTraining(const v1::RunStatus::Stage& stage) { return stage.done() > 0 && std::isfinite(stage.loss()); }

void Add(const std::string& tag, double value, v1::TensorBoardEvent* event) {
  auto* added = event->mutable_summary()->add_value();
  added->set_tag(tag);
  added->set_simple_value(static_cast<float>(value));
}

}  // namespace

void JobCurves::Observe(const v1::RunStatus& status, double wall_time) {
  for (const auto& stage : status.stages()) {
    if (failed_ || !IsTraining(stage) || finished_.contains(stage.name())) continue;
    const absl::Status written = Write(stage, wall_time);
    if (written.ok()) continue;
    spdlog::warn("no more curves: {}", std::string(written.message()));
    failed_ = true;
  }
}

absl::Status JobCurves::Open(const v1::RunStatus::Stage& stage, double wall_time, Curve* curve) {
  const std::string name =
      absl::StrFormat("%s/%s/events.out.tfevents.%010d.coordinator.%d", folder_,
                      absl::StrReplaceAll(stage.name(), {{":", "-"}}), static_cast<int64_t>(wall_time), term_);
  ASSIGN_OR_RETURN(curve->file, EventFile::Create(name, wall_time));
  // What a process that died wrote of later steps is void.
  v1::TensorBoardEvent start;
  start.set_wall_time(wall_time);
  start.set_step(stage.done());
  start.mutable_session_log()->set_status(v1::TensorBoardEvent::SessionLog::START);
  return curve->file->Append(start);
}

absl::Status JobCurves::Write(const v1::RunStatus::Stage& stage, double wall_time) {
  Curve& curve = curves_[stage.name()];
  if (curve.file == nullptr) RETURN_IF_ERROR(Open(stage, wall_time, &curve));
  if (stage.done() == curve.stage.done()) return absl::OkStatus();
  v1::TensorBoardEvent event;
  event.set_wall_time(wall_time);
  event.set_step(stage.done());
  Add("loss", stage.loss(), &event);
  Add("learning_rate", stage.learning_rate(), &event);
  Add("data_wait_seconds", stage.data_wait_seconds(), &event);
  const double seconds = stage.seconds() - curve.stage.seconds();
  if (curve.stage.done() > 0 && seconds > 0) {
    Add("records_per_second", static_cast<double>(stage.records() - curve.stage.records()) / seconds, &event);
  }
  for (const auto& [language, records] : stage.records_by_language()) {
    Add("records/" + language, static_cast<double>(records), &event);
  }
  RETURN_IF_ERROR(curve.file->Append(event));
  if (stage.validation_step() > curve.stage.validation_step()) {
    v1::TensorBoardEvent validation;
    validation.set_wall_time(wall_time);
    validation.set_step(stage.validation_step());
    Add("validation", stage.validation(), &validation);
    RETURN_IF_ERROR(curve.file->Append(validation));
  }
  curve.stage = stage;
  return absl::OkStatus();
}

}  // namespace polystill::coordinator
