#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/jobs.h"
#include "coordinator/run_inputs.h"
#include "coordinator/state_store.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::coordinator {

using Instant = std::chrono::steady_clock::time_point;

// One Work or Teach stream; never used twice.
using StreamId = int64_t;

// What can happen to a run.

// A process opened a stream; its first message must be `hello`.
struct StreamOpened {
  StreamId stream = 0;
};
// The process closed its stream, or is gone.
struct StreamClosed {
  StreamId stream = 0;
};
struct WorkerSaid {
  StreamId stream = 0;
  v1::WorkerMessage message;
};
struct TeacherSaid {
  StreamId stream = 0;
  v1::TeacherMessage message;
};
// Answer to DescribeTeacher.
struct TeacherDescribed {
  std::string teacher;
  absl::StatusOr<v1::DescribeReply> reply;
};
// A stage before the jobs ("index", "tokenizer") began or came further.
struct StageProgress {
  std::string stage;
  int64_t done = 0;
  // 0 when unknown.
  int64_t total = 0;
  int64_t records = 0;
  std::map<std::string, int64_t> records_by_language;
};
// The jobs, with steps, plans and selections filled in.
struct PreparedJobs {
  std::vector<PlannedJob> jobs;
  // Job -> units to do: steps of a training, records of an evaluation.
  std::map<std::string, int64_t> totals;
  // SHA-256 of the tokeniser's file; empty without one.
  std::string tokenizer_digest = {};
  // With their digests.
  std::vector<RunInput> inputs = {};
};
// The stages before the jobs have ended, or what went wrong.
struct StagesFinished {
  absl::StatusOr<PreparedJobs> prepared;
};
// Answer to WriteReport: the report's path, or what went wrong.
struct ReportFinished {
  absl::StatusOr<std::string> report;
};
// The durable state could not be written: nothing may go on without it.
struct StoreFailed {
  absl::Status status;
};
// A later coordinator has begun its term: this one ends without another word to anybody.
struct Superseded {
  absl::Status status;
};
// A person wants so many workers in training from its next step boundary on.
struct ScaleAsked {
  int workers = 0;
};
// A person, or a signal, ends the run.
struct StopAsked {
  std::string reason;
};
// Time passes; several times a second.
struct Tick {};

using Event = std::variant<StreamOpened, StreamClosed, WorkerSaid, TeacherSaid, TeacherDescribed, StageProgress,
                           StagesFinished, ReportFinished, StoreFailed, Superseded, ScaleAsked, StopAsked, Tick>;

// What the coordinator has to do about it, in this order.

struct SendToWorker {
  StreamId stream = 0;
  v1::WorkerOrder order;
};
struct SendToTeacher {
  StreamId stream = 0;
  v1::TeacherOrder order;
};
// Ends a stream with a status; the machine has forgotten it already.
struct CloseStream {
  StreamId stream = 0;
  absl::Status status;
};
// Asks a teacher that is no part of the run what it serves.
struct DescribeTeacher {
  std::string teacher;
  std::string address;
};
// To be durable before the actions after it are carried out; StoreFailed or Superseded otherwise.
struct RecordGeneration {
  StateStore::Generation generation;
};
struct RecordWantedWorkers {
  int workers = 0;
};
struct RecordSegment {
  std::string job;
  v1::PlanSegment segment;
};
// What the run reads: at its first use.
struct RecordInput {
  std::string key;
  std::string digest;
};
// Admits a checkpoint to the lineage; `stage`: what the job has consumed by then.
struct RecordCheckpoint {
  std::string job;
  StateStore::Checkpoint checkpoint;
  v1::RunStatus::Stage stage;
};
struct RecordFinishedJob {
  std::string job;
  int64_t generation = 0;
  // Steps applied, and where the state after the last one lies; empty for an evaluation.
  int64_t step = 0;
  std::string checkpoint;
  std::string weights_digest;
  v1::RunStatus::Stage stage;
};
// A checkpoint that newer ones have replaced: it leaves the store, then the disk. `rotten`: it stays on the disk until
// the job is finished, to be looked at.
struct DropCheckpoint {
  std::string job;
  std::string path;
  bool rotten = false;
};
// One that was never admitted, and never will be: it leaves the disk.
struct DeleteCheckpoint {
  std::string path;
};
// A job is finished: whatever lies in its folder of checkpoints and is not `kept` was never admitted, and goes.
struct CleanCheckpoints {
  std::string folder;
  std::vector<StateStore::Checkpoint> kept;
};
// Nothing to be made durable, but what comes after it is for the present coordinator only to say.
struct ConfirmTerm {};
// Every job is done. `teacher_digests`: name -> digest of the package.
struct WriteReport {
  std::map<std::string, std::string> teacher_digests;
};
// A line for the log.
struct Log {
  std::string text;
};
// The run has ended and its processes are gone, or had time to go: the coordinator may leave.
struct EndRun {};

using Action = std::variant<SendToWorker, SendToTeacher, CloseStream, DescribeTeacher, RecordGeneration,
                            RecordWantedWorkers, RecordSegment, RecordInput, RecordCheckpoint, RecordFinishedJob,
                            DropCheckpoint, DeleteCheckpoint, CleanCheckpoints, ConfirmTerm, WriteReport, Log, EndRun>;

}  // namespace polystill::coordinator
