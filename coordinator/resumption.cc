#include "coordinator/resumption.h"

#include <google/protobuf/util/message_differencer.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "checkpoint/path.h"
#include "coordinator/jobs.h"
#include "runtime/status.h"

namespace polystill::coordinator {
namespace {

namespace fs = std::filesystem;
using Checkpoints = std::vector<StateStore::Checkpoint>;

// OK when a checkpoint's folder is whole and holds what was admitted: a worker that nobody heard any more may have
// replaced it.
absl::Status CheckAdmitted(const Verifiers& verifiers, const StateStore::Checkpoint& admitted) {
  ASSIGN_OR_RETURN(const StateStore::Checkpoint held, verifiers.checkpoint(admitted.path));
  const auto differs = [&](const char* what, const auto& is, const auto& was) {
    return absl::DataLossError(absl::StrCat(admitted.path, ": has ", what, " ", is, ", admitted was ", was));
  };
  if (held.step != admitted.step) return differs("step", held.step, admitted.step);
  if (held.generation != admitted.generation) return differs("generation", held.generation, admitted.generation);
  if (held.digest != admitted.digest) return differs("weights", held.digest, admitted.digest);
  return absl::OkStatus();
}

// Strikes the newest ones until one is as it was admitted.
absl::Status DropUnfit(const std::string& job, const Verifiers& verifiers, StateStore* store,
                       Checkpoints* checkpoints) {
  while (!checkpoints->empty()) {
    const absl::Status intact = CheckAdmitted(verifiers, checkpoints->back());
    if (intact.ok()) return absl::OkStatus();
    spdlog::warn("{}: passing over the checkpoint of step {}: {}", job, checkpoints->back().step,
                 std::string(intact.message()));
    RETURN_IF_ERROR(store->DropCheckpoint(job, checkpoints->back().path));
    checkpoints->pop_back();
  }
  return absl::OkStatus();
}

}  // namespace

void DeleteUnadmitted(const std::string& folder, const std::vector<StateStore::Checkpoint>& admitted,
                      int64_t last_generation) {
  std::error_code missing;
  for (const auto& entry : fs::directory_iterator(folder, missing)) {
    const std::string name = entry.path().filename().string();
    const bool known = std::any_of(admitted.begin(), admitted.end(), [&](const StateStore::Checkpoint& checkpoint) {
      return fs::path(checkpoint.path).filename() == name;
    });
    const auto parsed = checkpoint::ParseCheckpointName(name);
    if (known || (parsed.has_value() && parsed->generation >= last_generation)) continue;
    spdlog::info("deleting {}: it was never admitted to the run", entry.path().string());
    std::error_code error;
    fs::remove_all(entry.path(), error);
  }
}

absl::StatusOr<Resumption> FindResumption(const v1::RunSpec& spec, const Verifiers& verifiers, StateStore* store) {
  Resumption resumption;
  ASSIGN_OR_RETURN(const auto stages, store->Stages());
  for (const auto& stage : stages) resumption.stages[stage.name()] = stage;
  ASSIGN_OR_RETURN(const auto finished, store->FinishedJobs());
  for (const auto& job : finished) resumption.finished[job.job] = job.weights_digest;
  ASSIGN_OR_RETURN(resumption.inputs, store->Inputs());
  ASSIGN_OR_RETURN(const StateStore::Generation generation, store->LastGeneration());
  bool first = true;
  for (const PlannedJob& planned : PlanJobs(spec)) {
    const std::string& job = planned.job.name();
    if (planned.job.kind() != v1::Job::KIND_TRAIN) {
      resumption.finished.erase(job);  // an evaluation is done again: it takes no longer than to verify it
      continue;
    }
    ASSIGN_OR_RETURN(const auto segments, store->Segments(job));
    if (!segments.empty()) resumption.segments[job] = segments.back();
    ASSIGN_OR_RETURN(Checkpoints checkpoints, store->Checkpoints(job));
    DeleteUnadmitted(planned.job.checkpoints(), checkpoints, generation.number);
    if (const auto done = resumption.finished.find(job); done != resumption.finished.end()) {
      const absl::Status intact = verifiers.package(planned.job.package(), done->second);
      if (intact.ok()) continue;
      spdlog::warn("{}: was finished, but its package is damaged: {}; it is made again", job,
                   std::string(intact.message()));
      resumption.finished.erase(done);
    }
    RETURN_IF_ERROR(DropUnfit(job, verifiers, store, &checkpoints));
    if (!checkpoints.empty()) {
      spdlog::info("{}: goes on after step {} from {}", job, checkpoints.back().step, checkpoints.back().path);
      resumption.checkpoints[job] = std::move(checkpoints);
    } else if (first) {
      spdlog::warn("{}: has no intact checkpoint: it starts from its first step", job);
    }
    first = false;
  }
  return resumption;
}

std::string PlanChange(const Resumption& resumption, const std::string& job, const v1::PlanSegment& now) {
  const auto began = resumption.segments.find(job);
  if (began == resumption.segments.end()) return "";
  if (began->second.index_digest() != now.index_digest()) {
    return absl::StrCat("the corpus has changed since the run began: the index of ", job, "'s records was ",
                        began->second.index_digest(), ", now it is ", now.index_digest(),
                        "; put the files back as they were, or start another run");
  }
  if (google::protobuf::util::MessageDifferencer::Equals(began->second, now)) return "";
  return absl::StrCat("the plan of ", job,
                      " is not the one that the run began with; go on with the release that began it");
}

std::string InputChange(const Resumption& resumption, const RunInput& now) {
  const auto began = resumption.inputs.find(now.key);
  if (began == resumption.inputs.end() || began->second == now.digest) return "";
  const auto left = std::find_if(now.jobs.begin(), now.jobs.end(),
                                 [&](const std::string& job) { return !resumption.finished.contains(job); });
  if (left == now.jobs.end()) return "";
  return absl::StrCat(now.key, ": ", now.path, " has changed since the run began: its SHA-256 was ", began->second,
                      ", now it is ", now.digest, ", and ", *left,
                      " is still to be done with it; put it back as it was, or start another run");
}

}  // namespace polystill::coordinator
