#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/training.pb.h"
#include "student_worker/lineage.h"

namespace polystill::student_worker {

// What a worker may do and must say as a member of generations (docs/elastic.md): no clock, no network, no tensor.
// Whoever holds it does the work between its calls:
//
//   1. Whoever reads the coordinator's stream calls Welcomed for each new stream, and Ordered for each order, and does
//      what they answer. Everything below is called by whoever trains, in this order, for each generation:
//   2. Begin      takes the assignment that waits, if one does. A job of KIND_EVALUATE goes on with 6.
//   3. Joined     the group is connected; now each rank gives its note() to all others.
//   4. Agree      says from the notes where the state comes from. A rank that is to replace its own gets the new one
//                 ready beside it and has verified its digest, calls Taking, swaps it in, and calls Taken. Then all
//                 ranks compare digests, and each that has found them equal calls Agreed.
//   5. Applying   before the optimiser runs: only when every bucket of the step's gradients was reduced whole. Applied
//                 after it.
//   6. Done       after the last step, or Failed; the state is kept. Leave when a collective fails, when must_leave()
//                 or when the ranks have agreed in their roll call to leave. Then from 2 again.
//
// A message that a call returns is to be sent to the coordinator; while there is none, it is dropped: standing() and
// LastWord() tell all that counts to the next one.
//
// Calls out of order are errors of the program and end it. Not thread-safe: where reading and training are threads of
// their own, every call is made under one lock of the caller's, which is not held while work is done.
class Member {
 public:
  enum class State {
    kWaiting,   // for an assignment -> kJoining, or kWorking (evaluation)
    kJoining,   // the group of its generation -> kAgreeing, kWaiting
    kAgreeing,  // with its peers on a state -> kTaking, kWorking, kWaiting
    kTaking,    // over a state, and holds none -> kAgreeing, kWaiting
    kWorking,   // between two steps -> kApplying, kDone, kWaiting
    kApplying,  // a step, and holds no state -> kWorking, kWaiting
    kDone,      // with the job, whose state it keeps -> kJoining, kWaiting
  };

  // What an order asks of the reader.
  struct Reaction {
    enum class Kind {
      kNone,      // refused, known already, or noted: nothing
      kLook,      // wake whoever trains: Begin has something, or leave_at_boundary() has changed
      kBreak,     // break the group, if there is one, so that its collectives fail at once; then as kLook
      kTeachers,  // the replicas of assignment().teachers() have changed
      kStop,      // the run has ended
    };
    Kind kind = Kind::kNone;
    std::optional<v1::WorkerMessage> say = std::nullopt;
  };

  // How whose state goes on is found; another rule than ChooseSource shows that the simulation finds a wrong one.
  using Rule = absl::StatusOr<Source> (*)(const std::vector<v1::StateNote>&, const v1::WorkerOrder::Assignment&);
  explicit Member(Rule rule = ChooseSource) : rule_(rule) {}

  // A coordinator has welcomed this worker on a new stream. False: a later one has been seen; close the stream, obey
  // nothing that comes on it, and look for the later one.
  bool Welcomed(int64_t term);

  // An order came. What is read late, from an earlier stream, may be passed here too, but for `stop`.
  Reaction Ordered(const v1::WorkerOrder& order);

  // The newest assignment, unless it was begun already or taken back. Every state but kWaiting and kDone: none, since
  // the generation under way must be left before. What is held belongs to its job from now on: of a job that this
  // worker did not do last it is the initial weights, which the caller makes.
  const v1::WorkerOrder::Assignment* Begin();

  // The group is connected: kJoining -> kAgreeing.
  void Joined();

  // Where the state comes from. `notes`: of all ranks, by rank. The errors of ChooseSource.
  absl::StatusOr<Source> Agree(const std::vector<v1::StateNote>& notes);

  // The state of that source, verified, takes the place of what was held: between the two this worker holds none.
  void Taking();
  void Taken();

  // All ranks hold the same state, which has this `digest`. -> kWorking.
  v1::WorkerMessage Agreed(const std::string& digest);

  // A whole step is about to be applied: between the two this worker holds no state.
  void Applying();
  void Applied();

  // The job's last step has been applied, or its evaluation is written. -> kDone; as Leave when must_leave().
  std::optional<v1::WorkerMessage> Done(const v1::WorkerMessage::Progress& progress, const std::string& weights_digest);

  // The job cannot go on here, for a reason of this worker's own. -> kWaiting.
  v1::WorkerMessage Failed(const absl::Status& why);

  // The generation under way is left: OK after an order, ABORTED when a peer was gone. Nothing is said where the
  // coordinator knows by having ordered the next generation. -> kWaiting.
  std::optional<v1::WorkerMessage> Leave(const absl::Status& why);

  // The generation under way is to be left at once, or after a step upon which the ranks agree (RankNote.regroup).
  bool must_leave() const { return begun_generation_ != generation_ || leave_at_once_; }
  bool leave_at_boundary() const { return leave_at_boundary_; }

  // For the hello on a new stream: what it does and holds.
  v1::Standing standing() const;
  // To be sent after that hello's welcome, if there is something: it may have come about since the hello.
  const std::optional<v1::WorkerMessage>& LastWord() const { return last_word_; }

  // Of this rank's state for its peers; the caller adds the digest.
  v1::StateNote note() const;

  State state() const { return state_; }
  // The assignment begun last, with the teachers' replicas as they are now.
  const v1::WorkerOrder::Assignment& assignment() const { return assignment_; }
  const StateName& held() const { return held_; }
  int64_t term() const { return term_; }

 private:
  Reaction OrderedAssignment(const v1::WorkerOrder::Assignment& assignment);
  Reaction OrderedRegroup(const v1::WorkerOrder::Regroup& regroup);
  Reaction OrderedTeachers(const v1::WorkerOrder::Teachers& teachers);
  bool in_group() const { return state_ != State::kWaiting && state_ != State::kDone; }
  v1::WorkerMessage Interrupted(const absl::Status& why);

  Rule rule_;
  State state_ = State::kWaiting;
  // The greatest term seen, and the generation of the newest assignment: what is lower is refused.
  int64_t term_ = 0;
  int64_t generation_ = 0;
  // The newest assignment while it waits to be begun.
  std::optional<v1::WorkerOrder::Assignment> ordered_;
  v1::WorkerOrder::Assignment assignment_;
  // The newest one that was begun, or else left before that.
  int64_t begun_generation_ = 0;
  bool leave_at_once_ = false;
  bool leave_at_boundary_ = false;

  StateName held_;
  // While it holds none: what it will hold.
  StateName next_;
  // Of the generation under way.
  Source source_;
  // That it is done, has failed or has left, in the newest generation.
  std::optional<v1::WorkerMessage> last_word_;
};

}  // namespace polystill::student_worker
