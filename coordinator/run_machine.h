#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/jobs.h"
#include "coordinator/members.h"
#include "coordinator/replica_choice.h"
#include "coordinator/run_config.h"
#include "coordinator/run_events.h"
#include "coordinator/suspects.h"
#include "polystill/v1/coordinator.pb.h"

namespace polystill::coordinator {

// Decides what a run does next, as a pure function of what has happened: no network, no file, no clock of its own.
//
//   1. The stages before the jobs run elsewhere; their progress and their end come as events.
//   2. A job starts when enough workers are there (ranks in order of arrival) and every replica of its teachers is
//      ready. From then on its workers come and go by generations, as docs/elastic.md says.
//   3. It is done when every rank of a generation said so with the same digest of its weights. A teacher trained by it
//      is then loaded.
//   4. After the last job the report is written; then everybody is told to stop.
//
// A run that is resumed passes over what is finished, and gives its job the newest checkpoint that was admitted. The
// plans must be those that the jobs began with. The last generation's members may still be at work: those who come back
// within kComeBackWithin, and all of them are, stay a generation.
//
// A worker that vanishes fails nothing. One that says why it cannot go on, and means itself, fails the run, unless it
// is new and others go on without it.
//
// States: RUNNING -> DONE | FAILED | STOPPED, none of which is left again. Not thread-safe.
class RunMachine {
 public:
  // A process that is silent for this long is gone.
  static constexpr std::chrono::milliseconds kDeadAfter{5000};
  // For the members of the last generation, and its teachers, to find a new coordinator.
  static constexpr std::chrono::milliseconds kComeBackWithin{10'000};
  // They look for it every second: when none of them has come by then, all of them are gone, as after a whole run's
  // end.
  static constexpr std::chrono::milliseconds kFirstComesWithin{3000};
  // Workers that cannot reach each other try again after this, then after twice as long, up to the other.
  static constexpr std::chrono::milliseconds kFormAgainAfter{100};
  static constexpr std::chrono::milliseconds kFormAgainWithin{5000};
  // For a member to begin what it was assigned, and to leave its generation at an order or after the others have left:
  // one that is heard but does neither hangs.
  static constexpr std::chrono::milliseconds kFollowWithin{30'000};
  // How often members are compared (coordinator/stragglers.h), and how long one that was left out for being slow is
  // asked only where min_workers are not to be had without it.
  static constexpr std::chrono::milliseconds kCompareEvery{1000};
  static constexpr std::chrono::milliseconds kRestFor{300'000};
  // Ticks come ten times a second; after a longer pause between two, this process stood still itself, and the time is
  // not counted against the others, whose messages wait to be read.
  static constexpr std::chrono::milliseconds kStoodStill{1000};
  // How often a teacher given by its address is asked while it is still loading, and for how long.
  static constexpr std::chrono::milliseconds kAskEvery{1000};
  static constexpr std::chrono::milliseconds kLoadWithin{300'000};
  // When teachers' replicas come and go, so many members a millisecond are told, at most.
  static constexpr size_t kToldAMillisecond = 10;
  // How often it is made sure that no later coordinator has taken over, where nothing is to be recorded.
  static constexpr std::chrono::milliseconds kConfirmEvery{1000};
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
  struct TeacherServer {
    StreamId stream = 0;
    std::string id;
    std::string teacher;
    std::string address;
    // What it served when it came; empty: nothing.
    std::string serves;
    bool loading = false;
    // Empty until it is ready.
    std::string digest;
    Heard heard;
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
  struct StageState {
    v1::RunStatus::Stage status;
    std::optional<Instant> started;
    // Spent on it by earlier processes.
    double seconds_before = 0;
  };

  // run_machine.cc
  // What follows from all that is known.
  void Decide();
  void On(const StreamOpened& event);
  void On(const StreamClosed& event);
  void On(const WorkerSaid& event);
  void On(const TeacherSaid& event);
  void On(const TeacherDescribed& event);
  void On(const StageProgress& event);
  void On(const StagesFinished& event);
  void On(const ReportFinished& event);
  void On(const StoreFailed& event);
  void On(const Superseded& event);
  void On(const ScaleAsked& event);
  void On(const StopAsked& event);
  void On(const Tick& event);
  // True when the event waits until the jobs are known.
  bool HearLater(const WorkerSaid& event);
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
  // Moves every wait of this machine on by the time for which this process stood still.
  void ForgiveStandstill();
  void Say(std::string text) { actions_.push_back(Log{std::move(text)}); }
  bool running() const { return state_ == v1::RunStatus::STATE_RUNNING; }

  // run_machine_workers.cc
  void Welcome(StreamId stream, const v1::WorkerMessage::Hello& hello);
  void OnProgress(Rank* rank, const v1::WorkerMessage::Progress& progress);
  void OnDone(Rank* rank, const v1::WorkerMessage::Done& done);
  void OnFailed(Rank* rank, const v1::WorkerMessage::Failed& failed);
  void FinishJob();
  void ReportIfDone();
  void LoseWorker(const Worker& worker, const std::string& why);
  Worker* FindWorker(StreamId stream);
  // The member of that generation, if it is the last one, on this stream.
  Rank* FindRank(StreamId stream, int64_t generation);
  // Of the last generation; null when it is none of its members.
  Rank* FindRank(const Worker& worker);
  bool IsMember(const Worker& worker) const;

  // Sets the package of the teacher that this job has trained, if it is one.
  void OfferPackage(const v1::Job& job);
  // Whether a stopped training may still be writing its checkpoint.
  bool IsSaving() const;

  // run_machine_generations.cc: docs/elastic.md, "Generations"
  void GoOn();
  bool IsOver() const;
  // What the next generation waits for; empty when it can be formed.
  std::string WaitingFor(const PlannedJob& planned);
  bool HasEnoughWorkers(const PlannedJob& planned);
  void TellWaiting(const PlannedJob& planned, const std::string& waiting_for);
  void Form(const PlannedJob& planned);
  // Those of the next generation, by rank.
  std::vector<Worker*> Pick(const PlannedJob& planned);
  v1::WorkerOrder::Assignment AssignmentOf(const PlannedJob& planned);
  void BeginJob(const PlannedJob& planned);
  static std::string WhoIs(const PlannedJob& planned, size_t rank, const Worker& worker);
  int WantedWorkers(const PlannedJob& planned) const;
  // With how many a job starts, unless its last call is over.
  int FirstWorkers(const PlannedJob& planned) const;
  // Ends the generation at a boundary when another number of workers is wanted, and there.
  void WantOtherWorkers();
  // With how many of the workers here the next generation is formed.
  int ToCome(const PlannedJob& planned) const;
  void OrderRegroup(bool at_boundary, const std::string& reason);
  void OrderRegroup(Rank* rank, bool at_boundary, const std::string& reason);
  // Ends the generation at once.
  void Break(const std::string& reason);
  void OnAgreed(Rank* rank, const v1::WorkerMessage::Agreed& agreed);
  void OnInterrupted(Rank* rank, const absl::Status& why);
  // After a coordinator's restart: the last generation, if it was of the job that is next.
  void AwaitMembers();
  void ComeBack(Worker* worker);
  void GiveUpAwaited();

  // run_machine_stragglers.cc: members that hang, and members that are slow
  void OnHeartbeat(Worker* worker, const v1::Heartbeat& heartbeat);
  // It has begun its assignment.
  void Begun(Rank* rank);
  // Takes those for gone that do not follow their orders.
  void GiveUpHanging();
  void GiveUp(StreamId stream, const std::string& what);
  bool Hangs(const Worker& worker) const { return hanging_.contains(worker.id); }
  // Those of resting_ that the next generation can be without: all, or none of them when they alone hold the state.
  const std::map<std::string, Instant>& Dispensable() const;
  // A member rests that the next generation would be without.
  bool IsToBeWithout(const PlannedJob& planned) const;
  void CompareMembers();
  // False: they cannot be compared now.
  bool LookAtMembers(const PlannedJob& planned);
  void LeaveOutSlowest(const PlannedJob& planned, StageState* stage);
  v1::RunStatus::SlowWorker Describe(const Worker& worker) const;
  int CountHere(const std::map<std::string, Instant>& ids) const;
  // run_machine_suspects.cc
  // Of the workers here, those that the next generation may have: that answer and are not left out.
  int Here() const;
  bool IsAway(const Worker& worker) const { return Hangs(worker) || suspects_.IsOut(worker.id); }
  int LeftOutHere() const;
  // Of the last generation that has done a step, those that the next one may have.
  int ProvenHere() const;
  // All of those are gone, but some may only have been cut off.
  bool StateMayComeBack() const;
  // A rank has applied so many.
  void NoteStep(int64_t step);
  void LeaveOut(const Worker& worker, int turns, const std::string& why);
  // For the log and the status.
  void SayLeftOut(const std::string& what);
  // After generations in which no rank agreed: who is to be left out of the next one.
  void LeaveOutUnreachable(const PlannedJob& planned);
  // So many of those that were not reached: without them there are too few.
  void TakeBack(int count);
  // When it comes from where another has failed.
  void LeaveOutNewcomer(const Worker& worker);
  // Whether a rank that fails by itself is no reason to end the run.
  bool CanDoWithout(const Rank& rank) const;
  void Dismiss(const Rank& rank, const std::string& why);

  // run_machine_resume.cc
  void AdoptStages();
  // Records an input at its first use. False: it is not what the run began with, which ends the run.
  bool AdoptInput(const RunInput& input);
  void SkipFinishedJobs();
  void OnCheckpointed(StreamId stream, const v1::WorkerMessage::Checkpointed& written);
  // It was told of after its generation, and is of no use any more.
  void DeleteUnlessAdmitted(const v1::WorkerMessage::Checkpointed& written);
  // True when the failure is that the job's newest checkpoint has rotted, and there is another to go on from.
  bool StrikeRotten(Rank* rank, const absl::Status& why);
  // Drops all but the newest `count`.
  void KeepCheckpoints(const v1::Job& job, size_t count);
  // Where the state after a job's last step lies.
  std::string LastCheckpoint(const v1::Job& job, int64_t step) const;

  // run_machine_teachers.cc
  void Welcome(StreamId stream, const v1::TeacherMessage::Hello& hello);
  void Adopt(TeacherServer* server);
  void OnReady(TeacherServer* server, const v1::TeacherMessage::Ready& ready);
  void LoseTeacher(const TeacherServer& server, const std::string& why);
  // Servers, or what they serve, have changed.
  void NoteTeachers();
  // Orders `load` to every server whose package is there by now.
  void LoadTeachers();
  void DescribeTeachers();
  void DescribeAgain();
  TeacherServer* FindServer(StreamId stream);
  Teacher* FindTeacher(const std::string& name);
  std::vector<const TeacherServer*> ReadyServers(const std::string& teacher) const;
  // `replicas`: how many must be ready.
  std::string WaitingForTeacher(const std::string& name, int replicas) const;
  // Those of which no server is ready.
  std::string MissingTeachers(const PlannedJob& planned) const;
  std::vector<v1::TeacherEndpoint> EndpointsOf(const PlannedJob& planned) const;
  // Tells members when the replicas of their teachers have changed.
  void TellTeachers();
  void TellTeachers(Rank* rank);
  // A teacher was trained: what servers held of it before is another one.
  void DiscardServed(const v1::Job& job);

  // run_machine_status.cc
  StageState* FindStage(const std::string& name);
  void BeginStage(StageState* stage);
  void FinishStage(StageState* stage);
  // The stage with what the ranks of its job have told.
  v1::RunStatus::Stage Summed(const StageState& stage) const;
  void KeepSums();
  void TellMembers();
  v1::RunStatus::Stage StageOf(const StageState& stage, Instant now) const;
  v1::RunStatus::Stage StageOf(const std::string& name);

  const RunConfig config_;
  // Later by the time for which this process stood still.
  Instant began_;
  // The highest ever used.
  int64_t last_generation_;
  // 0: as the jobs say.
  int wanted_workers_;
  std::vector<Teacher> teachers_;
  v1::RunStatus::State state_ = v1::RunStatus::STATE_RUNNING;
  std::string reason_;
  std::string report_;
  std::vector<StageState> stages_;
  int64_t revision_ = 0;

  // Streams that have not said hello -> when they were opened.
  std::map<StreamId, Heard> strangers_;
  std::map<StreamId, Worker> workers_;
  std::map<StreamId, TeacherServer> servers_;
  // Id -> stream.
  std::unordered_map<std::string, StreamId> worker_streams_;
  int64_t arrivals_ = 0;
  // Ids of workers that do not follow their orders -> since when; each until it says that it waits for another. They
  // may come back, but do not count as here.
  std::map<std::string, Instant> hanging_;
  // Ids of workers that were left out for being slow -> until when.
  std::map<std::string, Instant> resting_;

  bool prepared_ = false;
  std::vector<PlannedJob> jobs_;
  size_t next_job_ = 0;
  // Of the job under way; none before its first, which is the one with a last call.
  std::optional<Generation> generation_;
  // Since when there are enough workers for the first.
  std::optional<Instant> last_call_;
  // Generations in a row that no rank has agreed in, though no process was lost; and when to form the next.
  int futile_ = 0;
  Instant form_after_;
  Suspects suspects_;
  // Ids: of the last generation in which a step was done, and those that were left out in turn since the last
  // agreement.
  std::set<std::string> proven_;
  // When the last one of them was lost that was.
  Instant proven_lost_at_;
  std::vector<std::string> tried_without_;
  // As in RunStatus.
  std::vector<std::string> left_out_;
  // Teachers' replicas, of which the members were told last.
  ReplicaChoice told_;
  Instant told_at_;
  // What is to be looked at again: servers to load, replicas to tell, teachers that the status says are missing.
  bool load_due_ = true;
  // A heartbeat has told something new.
  bool decide_due_ = false;
  bool tell_due_ = true;
  bool missing_due_ = true;
  // What was said before the jobs were known, by stream: the newest checkpoints, and the last word besides.
  struct Early {
    std::deque<WorkerSaid> checkpoints;
    std::optional<WorkerSaid> word;
  };
  std::map<StreamId, Early> early_;
  // Job -> its admitted checkpoints, by step.
  std::map<std::string, std::vector<StateStore::Checkpoint>> checkpoints_;
  // Path of the one that was found rotten last.
  std::string rotten_;
  std::optional<Instant> ended_;
  bool left_ = false;
  bool teachers_stopped_ = false;
  std::optional<Instant> described_;
  Instant last_tick_;
  Instant compared_;
  bool stood_still_ = false;
  Instant confirmed_;

  // Of the event being handled.
  Instant now_;
  std::vector<Action> actions_;
};

}  // namespace polystill::coordinator
