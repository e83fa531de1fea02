#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/jobs.h"
#include "coordinator/resumption.h"
#include "coordinator/run_events.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// What the machine must know from the start.
struct RunConfig {
  std::string run;
  int64_t term = 0;
  // The highest generation ever used; the first assignment takes the next one.
  int64_t generation = 0;
  // The c10d store, as workers reach it.
  std::string store_host;
  int store_port = 0;
  // Names of all stages, in the order in which they run.
  std::vector<std::string> stages;
  std::vector<v1::Teacher> teachers;
  // The classes that every teacher must answer for, in this order.
  std::vector<std::string> labels;
  Resumption resumed;
};

// Decides what a run does next, as a pure function of what has happened: no network, no file, no clock of its own.
//
//   1. The stages before the jobs run elsewhere; their progress and their end come as events.
//   2. A job starts when enough workers are there (ranks in order of arrival) and every replica of its teachers is
//      ready; each start is a new generation.
//   3. It is done when every rank said so with the same digest of its weights. A teacher trained by it is then loaded.
//   4. After the last job the report is written; then everybody is told to stop.
//
// A run that is resumed passes over what is finished, and gives its job the newest checkpoint that was admitted. The
// plans must be those that the jobs began with.
//
// A worker that fails or vanishes during its job fails the run. The others then fail too, of broken connections: for
// kCauseWindow the machine listens to all of them and tells the cause that is not such a consequence.
//
// States: RUNNING -> DONE | FAILED | STOPPED, none of which is left again. Not thread-safe.
class RunMachine {
 public:
  // A process that is silent for this long is gone.
  static constexpr std::chrono::milliseconds kDeadAfter{5000};
  static constexpr std::chrono::milliseconds kCauseWindow{1000};
  // Ticks come ten times a second; after a longer pause between two, this process stood still itself, and the time is
  // not counted against the others, whose messages wait to be read.
  static constexpr std::chrono::milliseconds kStoodStill{1000};
  // How often a teacher given by its address is asked while it is still loading, and for how long.
  static constexpr std::chrono::milliseconds kAskEvery{1000};
  static constexpr std::chrono::milliseconds kLoadWithin{300'000};
  // Time that processes have to leave once the run has ended.
  static constexpr std::chrono::milliseconds kLeaveWithin{10000};
  // The same for workers of a stopped training, which write a checkpoint first.
  static constexpr std::chrono::milliseconds kSaveWithin{120000};

  RunMachine(RunConfig config, Instant now);

  // What to do about `event`, in order. `now` never goes back.
  std::vector<Action> Handle(const Event& event, Instant now);

  v1::RunStatus Status(Instant now) const;
  // Grows whenever Status changes by more than passing time.
  int64_t revision() const { return revision_; }

 private:
  struct Worker {
    StreamId stream = 0;
    std::string id;
    std::string host;
    int64_t pid = 0;
    Instant heard;
  };
  struct TeacherServer {
    StreamId stream = 0;
    std::string id;
    std::string teacher;
    std::string address;
    bool loading = false;
    // Empty until it is ready.
    std::string digest;
    Instant heard;
  };
  // A teacher of the run file.
  struct Teacher {
    v1::Teacher spec;
    // Where its package is, once there is one.
    std::string package;
    // Digest of the package; empty until a server has told it.
    std::string digest;
    // Of a teacher by address that is still loading: when it is asked again.
    std::optional<Instant> ask_at;
  };
  struct Rank {
    StreamId stream = 0;
    std::string who;
    v1::WorkerMessage::Progress progress;
    std::string digest;
    bool done = false;
    // Failed or gone.
    bool lost = false;
  };
  // The job under way.
  struct Running {
    int64_t generation = 0;
    std::vector<Rank> ranks;
  };
  struct Cause {
    Instant since;
    // A process that failed because another one did.
    bool consequence = false;
    std::string reason;
  };
  struct StageState {
    v1::RunStatus::Stage status;
    std::optional<Instant> started;
    // Spent on it by earlier processes.
    double seconds_before = 0;
  };

  // run_machine.cc
  void On(const StreamOpened& event);
  void On(const StreamClosed& event);
  void On(const WorkerSaid& event);
  void On(const TeacherSaid& event);
  void On(const TeacherDescribed& event);
  void On(const StageProgress& event);
  void On(const StagesFinished& event);
  void On(const ReportFinished& event);
  void On(const StoreFailed& event);
  void On(const StopAsked& event);
  void On(const Tick& event);
  // Whether the stream's first message may be this hello; else the stream is refused.
  bool Admit(StreamId stream, bool is_hello, int protocol_version);
  // Refuses a stream, or drops one that broke the protocol.
  void Drop(StreamId stream, absl::Status status);
  // Forgets a process that is no longer there, and bears the consequences.
  void Forget(StreamId stream, const std::string& why);
  void End(v1::RunStatus::State state, const std::string& reason);
  std::string WhyEnded() const;
  // Once: not before workers that still train, up to the step of their last checkpoint, are done with the labels.
  void StopTeachers();
  void NoteCause(bool consequence, const std::string& reason);
  // Moves every wait of this machine on by the time for which this process stood still.
  void ForgiveStandstill();
  void Say(std::string text) { actions_.push_back(Log{std::move(text)}); }
  bool running() const { return state_ == v1::RunStatus::STATE_RUNNING; }

  // run_machine_workers.cc
  void Welcome(StreamId stream, const v1::WorkerMessage::Hello& hello);
  void StartJobIfReady();
  void Assign(const PlannedJob& planned);
  void OnProgress(Rank* rank, const v1::WorkerMessage::Progress& progress);
  void OnDone(Rank* rank, const v1::WorkerMessage::Done& done);
  void OnFailed(Rank* rank, const v1::WorkerMessage::Failed& failed);
  void FinishJob();
  void LoseWorker(const Worker& worker, const std::string& why);
  Worker* FindWorker(StreamId stream);
  Rank* FindRank(StreamId stream, int64_t generation);
  std::string WaitingFor(const PlannedJob& planned) const;

  // Sets the package of the teacher that this job has trained, if it is one.
  void OfferPackage(const v1::Job& job);
  // Whether a stopped training may still be writing its checkpoint.
  bool IsSaving() const;

  // run_machine_resume.cc
  void AdoptStages();
  // Records an input at its first use. False: it is not what the run began with, which ends the run.
  bool AdoptInput(const RunInput& input);
  void SkipFinishedJobs();
  void OnCheckpointed(StreamId stream, const v1::WorkerMessage::Checkpointed& written);
  // Drops all but the newest `count`.
  void KeepCheckpoints(const v1::Job& job, size_t count);
  static std::string CheckpointPath(const v1::Job& job, int64_t step);

  // run_machine_teachers.cc
  void Welcome(StreamId stream, const v1::TeacherMessage::Hello& hello);
  void OnReady(TeacherServer* server, const v1::TeacherMessage::Ready& ready);
  void LoseTeacher(const TeacherServer& server, const std::string& why);
  // Orders `load` to every server whose package is there by now.
  void LoadTeachers();
  void DescribeTeachers();
  void DescribeAgain();
  TeacherServer* FindServer(StreamId stream);
  Teacher* FindTeacher(const std::string& name);
  std::vector<const TeacherServer*> ReadyServers(const std::string& teacher) const;
  std::string WaitingForTeacher(const std::string& name) const;
  std::vector<v1::TeacherEndpoint> EndpointsOf(const PlannedJob& planned) const;

  // run_machine_status.cc
  StageState* FindStage(const std::string& name);
  void BeginStage(StageState* stage);
  void FinishStage(StageState* stage);
  void SumProgress();
  v1::RunStatus::Stage StageOf(const std::string& name);

  const RunConfig config_;
  int64_t generation_;
  std::vector<Teacher> teachers_;
  v1::RunStatus::State state_ = v1::RunStatus::STATE_RUNNING;
  std::string reason_;
  std::string report_;
  std::vector<StageState> stages_;
  int64_t revision_ = 0;

  // Streams that have not said hello -> when they were opened.
  std::map<StreamId, Instant> strangers_;
  // In order of arrival.
  std::vector<Worker> workers_;
  std::vector<TeacherServer> servers_;

  bool prepared_ = false;
  std::vector<PlannedJob> jobs_;
  size_t next_job_ = 0;
  std::optional<Running> job_;
  // Job -> its admitted checkpoints, by step.
  std::map<std::string, std::vector<StateStore::Checkpoint>> checkpoints_;
  std::optional<Cause> cause_;
  std::optional<Instant> ended_;
  bool left_ = false;
  bool teachers_stopped_ = false;
  std::optional<Instant> described_;
  Instant last_tick_;

  // Of the event being handled.
  Instant now_;
  std::vector<Action> actions_;
};

}  // namespace polystill::coordinator
