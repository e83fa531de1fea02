#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// The little that a coordinator must not forget: a SQLite file (write-ahead log, synchronous=FULL). What a call
// returned OK for is on the disk. Tables: `kSchema` in the .cc file.
//
// Every call can fail with RESOURCE_EXHAUSTED (disk full, or the file's cap reached), DATA_LOSS (the file is damaged,
// or no such file), or INTERNAL; the message names the file. Every write is a transaction that fails with
// FAILED_PRECONDITION, and changes nothing, once a later coordinator has begun its term. Not thread-safe.
class StateStore {
 public:
  struct Options {
    // Cap of the file, in bytes.
    int64_t max_bytes = int64_t{1} << 30;
  };
  // Opens or makes the file and begins a new term. FAILED_PRECONDITION: written by another version.
  static absl::StatusOr<std::unique_ptr<StateStore>> Open(const std::string& path, Options options);
  static absl::StatusOr<std::unique_ptr<StateStore>> Open(const std::string& path) { return Open(path, Options()); }
  ~StateStore();

  // Grows with each Open; orders of a lower term than one seen are refused by workers.
  int64_t term() const { return term_; }
  // FAILED_PRECONDITION: a later coordinator has begun its term.
  absl::Status CheckTerm();

  absl::Status PutSpec(const v1::RunSpec& spec);
  // NOT_FOUND before PutSpec.
  absl::StatusOr<v1::RunSpec> Spec();

  // The last generation that was formed, the highest ever used; 0, of no job, before the first.
  struct Generation {
    int64_t number = 0;
    std::string job;
    // Ids of its workers, by rank. Not known of a generation that an earlier release formed.
    std::vector<std::string> members;
    bool operator==(const Generation&) const = default;
  };
  absl::Status PutGeneration(const Generation& generation);
  absl::StatusOr<Generation> LastGeneration();

  // Workers wanted, by the last order to scale; 0 before the first.
  absl::Status PutWantedWorkers(int64_t workers);
  absl::StatusOr<int64_t> WantedWorkers();

  // The plan's log of a job.
  absl::Status AddSegment(const std::string& job, const v1::PlanSegment& segment);
  absl::StatusOr<std::vector<v1::PlanSegment>> Segments(const std::string& job);

  // Digest of what a key of the run file names, as the run began with it.
  absl::Status PutInput(const std::string& key, const std::string& digest);
  absl::StatusOr<std::map<std::string, std::string>> Inputs();

  // A checkpoint that belongs to the lineage of states that survives; no other is ever loaded.
  struct Checkpoint {
    int64_t step = 0;
    int64_t generation = 0;
    // Folder.
    std::string path;
    // Of what was trained (weights, then projections), lower-case hex SHA-256.
    std::string digest;
    bool operator==(const Checkpoint&) const = default;
  };
  // Admits a checkpoint, in place of one of the same step, with what watchers see of its job then; or strikes one that
  // must not be loaded any more.
  absl::Status AdmitCheckpoint(const std::string& job, const Checkpoint& checkpoint,
                               const v1::RunStatus::Stage& stage = {});
  absl::Status DropCheckpoint(const std::string& job, const std::string& path);

  // Stages as watchers saw them last.
  absl::StatusOr<std::vector<v1::RunStatus::Stage>> Stages();

  // A job that every rank has done. Its last checkpoint is admitted in the same transaction, unless it has no path.
  absl::Status FinishJob(const std::string& job, const std::string& weights_digest, const Checkpoint& checkpoint,
                         const v1::RunStatus::Stage& stage = {});

  struct FinishedJob {
    std::string job;
    std::string weights_digest;
    bool operator==(const FinishedJob&) const = default;
  };
  // In the order in which they were done.
  absl::StatusOr<std::vector<FinishedJob>> FinishedJobs();
  // By step.
  absl::StatusOr<std::vector<Checkpoint>> Checkpoints(const std::string& job);

 private:
  class Database;
  explicit StateStore(std::unique_ptr<Database> database);
  absl::Status BeginTerm();
  // One transaction, of this term.
  absl::Status Write(const std::function<absl::Status()>& write);
  // Part of one.
  absl::Status PutStage(const v1::RunStatus::Stage& stage);

  std::unique_ptr<Database> database_;
  int64_t term_ = 0;
};

}  // namespace polystill::coordinator
