#include "student_worker/worker.h"

#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/address.h"
#include "runtime/status.h"
#include "student_worker/coordinator_link.h"
#include "student_worker/evaluator.h"
#include "student_worker/metrics.h"
#include "student_worker/record_trace.h"
#include "student_worker/trainer.h"

namespace polystill::student_worker {
namespace {

std::string OwnHost(const WorkerOptions& options) {
  if (!options.host.empty()) return options.host;
  if (IsLoopback(HostOf(options.coordinator))) return "127.0.0.1";
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

absl::StatusOr<v1::WorkerMessage::Done> CarryOut(const v1::WorkerOrder::Assignment& assignment,
                                                 const WorkerContext& context) {
  const v1::Job& job = assignment.job();
  spdlog::info("{}: generation {}, rank {} of {}", job.name(), assignment.generation(), assignment.rank(),
               assignment.world_size());
  if (job.kind() == v1::Job::KIND_TRAIN) return Train(assignment, context);
  if (job.kind() == v1::Job::KIND_EVALUATE) return Evaluate(assignment, context);
  return absl::UnimplementedError(absl::StrCat("a job of kind ", job.kind(), " is unknown to this build"));
}

}  // namespace

absl::StatusOr<v1::RunStatus::State> Work(const WorkerOptions& options, std::stop_source stop) {
  at::set_num_interop_threads(1);
  WorkerContext context;
  context.host = OwnHost(options);
  context.gpu = options.gpu;
  context.stop = stop.get_token();
  std::unique_ptr<RecordTrace> trace;
  if (!options.trace_records.empty()) {
    ASSIGN_OR_RETURN(trace, RecordTrace::Open(options.trace_records));
    context.trace = trace.get();
  }
  Metrics metrics;
  WorkerMetrics worker_metrics(&metrics);
  context.metrics = &worker_metrics;
  if (!options.metrics.empty()) RETURN_IF_ERROR(metrics.Listen(options.metrics, options.insecure));
  ASSIGN_OR_RETURN(auto link, CoordinatorLink::Open({.coordinator = options.coordinator, .host = context.host}, stop));
  context.run = link->run();
  context.link = link.get();
  absl::Status last;
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<v1::WorkerOrder::Assignment> assignment, link->NextAssignment());
    if (!assignment.has_value()) {
      RETURN_IF_ERROR(last);
      return link->RunEnd();
    }
    const auto done = CarryOut(*assignment, context);
    // What fails after the order to stop is its consequence: peers have left.
    const bool told_to_stop = link->RunEnd() != v1::RunStatus::STATE_UNSPECIFIED;
    last = absl::IsCancelled(done.status()) || told_to_stop ? absl::OkStatus() : done.status();
    if (done.ok()) {
      link->SendDone(*done);
    } else {
      spdlog::error("{}: {}", assignment->job().name(), std::string(done.status().message()));
      link->SendFailed(assignment->generation(), done.status());
    }
  }
}

}  // namespace polystill::student_worker
