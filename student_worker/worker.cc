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
#include "student_worker/membership.h"
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

// For the training under way, if there is one: members have this worker among them once it has joined, and would wait
// for it. What goes wrong here does so again when it is assigned, and is told then.
std::unique_ptr<Trainer> GetReadyAhead(CoordinatorLink* link, WorkerContext* context) {
  const absl::StatusOr<v1::GetJobReply> reply = link->GetJob();
  if (!reply.ok()) return nullptr;
  context->run = reply->run();
  v1::WorkerOrder::Assignment assignment;
  *assignment.mutable_job() = reply->job();
  *assignment.mutable_teachers() = reply->teachers();
  auto trainer = Trainer::Prepare(assignment, *context);
  if (!trainer.ok()) {
    spdlog::info("{}: not ready before it joins: {}", reply->job().name(), std::string(trainer.status().message()));
    return nullptr;
  }
  spdlog::info("{}: ready before it joins", reply->job().name());
  return *std::move(trainer);
}

using MaybeDone = absl::StatusOr<std::optional<v1::WorkerMessage::Done>>;

// `trainer`: of the last training, which may be this one.
MaybeDone CarryOut(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context,
                   std::unique_ptr<Trainer>* trainer) {
  const v1::Job& job = assignment.job();
  spdlog::info("{}: generation {}, rank {} of {}", job.name(), assignment.generation(), assignment.rank(),
               assignment.world_size());
  if (*trainer != nullptr && !(*trainer)->IsFor(job)) trainer->reset();
  if (job.kind() == v1::Job::KIND_EVALUATE) return Evaluate(assignment, context);
  if (job.kind() != v1::Job::KIND_TRAIN) {
    return absl::UnimplementedError(absl::StrCat("a job of kind ", job.kind(), " is unknown to this build"));
  }
  if (*trainer == nullptr) {
    ASSIGN_OR_RETURN(*trainer, Trainer::Prepare(assignment, context));
  }
  return (*trainer)->CarryOut(assignment);
}

// Tells what became of an assignment; the status when that is a failure of this worker's own.
absl::Status Tell(const v1::WorkerOrder::Assignment& assignment, const MaybeDone& done, const WorkerContext& context) {
  Membership& membership = *context.membership;
  const std::string& job = assignment.job().name();
  if (done.ok() && done->has_value()) {
    membership.Done((*done)->progress(), (*done)->weights_digest());
    return absl::OkStatus();
  }
  // Whoever is stopped is no failure, be it by the order itself or by a peer that obeyed it earlier.
  if (!done.ok() && context.stop.stop_requested()) {
    spdlog::info("{}: {}", job, std::string(done.status().message()));
    membership.Failed(absl::CancelledError(done.status().message()));
    return absl::OkStatus();
  }
  if (done.ok() || membership.must_leave()) {
    spdlog::info("{}: leaves generation {}, as ordered", job, assignment.generation());
    membership.Leave(absl::OkStatus());
    return absl::OkStatus();
  }
  if (absl::IsAborted(done.status())) {
    spdlog::warn("{}: leaves generation {}: {}", job, assignment.generation(), std::string(done.status().message()));
    membership.Leave(done.status());
    return absl::OkStatus();
  }
  spdlog::error("{}: {}", job, std::string(done.status().message()));
  membership.Failed(done.status());
  return done.status();
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
  Membership membership(stop);
  context.membership = &membership;
  CoordinatorLink::Options link_options;
  link_options.coordinator = options.coordinator;
  link_options.host = context.host;
  link_options.lost_patience = options.coordinator_patience;
  ASSIGN_OR_RETURN(auto link, CoordinatorLink::Reach(link_options, &membership, stop));
  context.link = link.get();
  std::unique_ptr<Trainer> trainer = GetReadyAhead(link.get(), &context);
  if (stop.stop_requested()) return absl::CancelledError("stopped before it joined");
  RETURN_IF_ERROR(link->Join());
  if (context.run != link->run()) trainer.reset();
  context.run = link->run();
  absl::Status last;
  while (const std::optional<v1::WorkerOrder::Assignment> assignment = membership.NextAssignment()) {
    last = Tell(*assignment, CarryOut(*assignment, context, &trainer), context);
    // What fails after the order to stop is its consequence: peers have left.
    if (link->RunEnd() != v1::RunStatus::STATE_UNSPECIFIED) last = absl::OkStatus();
  }
  RETURN_IF_ERROR(link->Lost());
  RETURN_IF_ERROR(last);
  return link->RunEnd();
}

}  // namespace polystill::student_worker
