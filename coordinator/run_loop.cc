#include "coordinator/run_loop.h"

#include <spdlog/spdlog.h>

#include <filesystem>
#include <system_error>
#include <utility>
#include <variant>

#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

void DeleteFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) spdlog::warn("cannot delete {}: {}", path, error.message());
}

}  // namespace

RunLoop::RunLoop(RunConfig config, EventQueue* events, Service* service, StateStore* store, ReportStarter start_report,
                 Options options)
    : events_(events),
      service_(service),
      store_(store),
      start_report_(std::move(start_report)),
      options_(std::move(options)),
      probe_(events),
      machine_(std::move(config), options_.clock()),
      ticked_at_(options_.clock()),
      published_at_(options_.clock()) {
  service_->Publish(machine_.Status(options_.clock()), false);
}

v1::RunStatus RunLoop::Run() {
  while (!ended_) {
    for (const Event& event : events_->Take(options_.tick)) {
      Handle(event);
      if (const auto* said = std::get_if<WorkerSaid>(&event)) service_->ReadNext(said->stream);
      if (const auto* said = std::get_if<TeacherSaid>(&event)) service_->ReadNext(said->stream);
    }
    if (const Instant now = options_.clock(); now - ticked_at_ >= options_.tick) {
      ticked_at_ = now;
      Handle(Tick{});
    }
    PublishIfDue();
  }
  return machine_.Status(options_.clock());
}

void RunLoop::Handle(const Event& event) {
  for (const Action& action : machine_.Handle(event, options_.clock())) {
    if (CarryOut(action)) continue;
    return;
  }
}

bool RunLoop::CarryOut(const Action& action) {
  const absl::Status recorded = Record(action);
  if (!recorded.ok()) {
    superseded_ |= absl::IsFailedPrecondition(recorded);
    Handle(superseded_ ? Event(Superseded{recorded}) : Event(StoreFailed{recorded}));
    return false;
  }
  if (const auto* begun = std::get_if<RecordGeneration>(&action); begun != nullptr && options_.begin_generation) {
    options_.begin_generation(begun->generation.number);
  }
  if (const auto* to_worker = std::get_if<SendToWorker>(&action)) service_->Send(*to_worker);
  if (const auto* to_teacher = std::get_if<SendToTeacher>(&action)) service_->Send(*to_teacher);
  if (const auto* close = std::get_if<CloseStream>(&action)) service_->Close(close->stream, close->status);
  if (const auto* describe = std::get_if<DescribeTeacher>(&action))
    probe_.Describe(describe->teacher, describe->address);
  if (const auto* report = std::get_if<WriteReport>(&action)) start_report_(*report, machine_.Status(options_.clock()));
  if (const auto* stray = std::get_if<DeleteCheckpoint>(&action)) DeleteFolder(stray->path);
  if (const auto* clean = std::get_if<CleanCheckpoints>(&action)) DeleteUnadmitted(clean->folder, clean->kept);
  if (const auto* log = std::get_if<Log>(&action)) spdlog::info("{}", log->text);
  if (std::holds_alternative<EndRun>(action)) ended_ = true;
  return true;
}

absl::Status RunLoop::Record(const Action& action) {
  if (const auto* generation = std::get_if<RecordGeneration>(&action)) {
    return store_->PutGeneration(generation->generation);
  }
  if (const auto* wanted = std::get_if<RecordWantedWorkers>(&action)) return store_->PutWantedWorkers(wanted->workers);
  if (std::holds_alternative<ConfirmTerm>(action)) {
    const absl::Status present = store_->CheckTerm();
    // A store that cannot be read keeps nobody from being told to stop.
    return absl::IsFailedPrecondition(present) ? present : absl::OkStatus();
  }
  if (const auto* segment = std::get_if<RecordSegment>(&action)) {
    return store_->AddSegment(segment->job, segment->segment);
  }
  if (const auto* input = std::get_if<RecordInput>(&action)) return store_->PutInput(input->key, input->digest);
  if (const auto* admitted = std::get_if<RecordCheckpoint>(&action)) {
    return store_->AdmitCheckpoint(admitted->job, admitted->checkpoint, admitted->stage);
  }
  if (const auto* dropped = std::get_if<DropCheckpoint>(&action)) {
    RETURN_IF_ERROR(store_->DropCheckpoint(dropped->job, dropped->path));
    if (!dropped->rotten) DeleteFolder(dropped->path);
    return absl::OkStatus();
  }
  if (const auto* done = std::get_if<RecordFinishedJob>(&action)) {
    return store_->FinishJob(done->job, done->weights_digest,
                             {done->step, done->generation, done->checkpoint, done->weights_digest}, done->stage);
  }
  return absl::OkStatus();
}

void RunLoop::PublishIfDue() {
  const Instant now = options_.clock();
  // What watchers see is the later coordinator's to say.
  if (superseded_ || machine_.revision() == published_revision_) return;
  const v1::RunStatus status = machine_.Status(now);
  const bool last = status.state() != v1::RunStatus::STATE_RUNNING;
  if (!last && now - published_at_ < options_.publish_every) return;
  if (options_.observe) options_.observe(status);
  published_revision_ = machine_.revision();
  published_at_ = now;
  service_->Publish(status, last);
}

}  // namespace polystill::coordinator
