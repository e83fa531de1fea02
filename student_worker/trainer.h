#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/generation.h"
#include "student_worker/worker_context.h"

namespace polystill::student_worker {

// A training job on this worker, over all generations in which it takes part: what it holds stays in memory from one
// assignment to the next, also after the job is done here, since a peer may not be done yet. Not thread-safe.
class Trainer {
 public:
  // Gets ready what does not depend on rank and world; the state is that before the first step. `context` outlives
  // this. Generation 0: ahead of an assignment, without patience. ABORTED: the generation is to be left; CANCELLED:
  // stopped; else the status names the file, record or field at fault.
  static absl::StatusOr<std::unique_ptr<Trainer>> Prepare(const v1::WorkerOrder::Assignment& assignment,
                                                          const WorkerContext& context);

  // Whether that is the job of an assignment. One that got ready ahead may have done so for another run of that name.
  bool IsFor(const v1::Job& job) const;

  // Carries out an assignment of this job: trains together with the other ranks, writes checkpoints and, as rank 0, the
  // package. Nothing: all ranks have left together after a step. Errors as of Generation.
  absl::StatusOr<std::optional<v1::WorkerMessage::Done>> CarryOut(const v1::WorkerOrder::Assignment& assignment);

 private:
  explicit Trainer(const WorkerContext& context) : context_(context) {}
  absl::Status Load(const v1::WorkerOrder::Assignment& assignment);
  absl::Status ConnectTeachers(v1::WorkerOrder::Assignment assignment);
  absl::StatusOr<std::unique_ptr<models::Model>> MakeModel() const;
  absl::StatusOr<v1::WorkerMessage::Done> Finish(const v1::WorkerOrder::Assignment& assignment);

  const WorkerContext& context_;
  Training training_;
  bool begun_ = false;
};

}  // namespace polystill::student_worker
