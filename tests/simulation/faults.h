#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "student_worker/member.h"
#include "tests/simulation/cluster.h"

namespace polystill::simulation {

// What goes wrong in a schedule, and when: kills, stops, lost connections, partitions, coordinators too many, each of
// which is over after a time. Drawn from the schedule's seed.
class Faults {
 public:
  explicit Faults(Cluster* cluster);

  // To be called after each event: lets the next fault happen when it is due.
  void Look();
  // All have happened and are over.
  bool Over() const { return next_ == planned_.size() && open_ == 0; }
  int64_t count() const { return count_; }

 private:
  enum class Kind {
    kKillWorker,
    kStopWorker,
    kKillAllWorkers,
    kBreakLink,
    kPartFromCoordinator,
    kPartFromWorker,
    kResetGroup,
    kKillCoordinator,
    kStopCoordinator,
    kSecondCoordinator,
    kReplaceStoppedCoordinator,
    kKillTeacher,
    kStopTeacher,
    kSlowWorker,
    kHangWorker,
    kScale,
    // Is never over, so it comes at most once.
    kCutOffWorker,
  };
  struct Fault {
    Kind kind;
    // Once the first job has come so far, or else soon after the fault before it.
    std::optional<int64_t> at_step;
    Millis after{0};
    // When a worker is in this state, if one is soon.
    std::optional<student_worker::Member::State> when;
  };
  void Happen(const Fault& fault);
  void Open(Millis time, Deed end);
  Worker* FindVictim(const Fault& fault) const;
  Coordinator* Newest() const;

  void Kill(Worker* worker);
  void Slow(Worker* worker);
  // A worker reaches no other any more, nor do its later lives.
  void CutOffOne();
  void Hang(Worker* worker);
  // Of a worker that hangs for good: kills it when nothing is asked of it, since then nobody can know.
  void Watch(Worker* worker, int life, int unasked);
  void KillCoordinator();
  void Hit(Kind kind, Worker* victim);
  void HitCoordinator(Kind kind);
  void HitTeacher(Kind kind);

  Cluster& cluster_;
  World& world_;
  std::vector<Fault> planned_;
  size_t next_ = 0;
  bool cuts_off_ = false;
  int open_ = 0;
  int64_t count_ = 0;
  Instant last_;
};

}  // namespace polystill::simulation
