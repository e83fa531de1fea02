#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/training.pb.h"
#include "tests/simulation/history.h"
#include "tests/simulation/network.h"

namespace polystill::simulation {

// What a rank gives to a collective; each collective uses what it needs of it.
struct Share {
  v1::StateNote note;
  ModelState state;
  std::vector<int64_t> positions;
  bool regroup = false;
};
using Shares = std::vector<Share>;

// The collectives of one generation. Every call waits for all ranks; once one is gone, those that wait fail, and of
// those whose call was complete already some fail too: the last all-reduce may be seen whole by one rank alone.
class Group : public std::enable_shared_from_this<Group> {
 public:
  using Heard = std::function<void(const absl::StatusOr<Shares>&)>;

  Group(World* world, Network* network, size_t size) : world_(world), network_(network), ranks_(size) {}

  // The rank's process waits for all others to join. `heard` is called in that process, OK with nothing.
  void Join(int rank, Process* process, Heard heard);
  // The rank's next collective.
  void Call(int rank, Share share, Heard heard);
  // The rank is gone: it left, was told to break the group, or died.
  void Leave(int rank);
  // Its connections are reset.
  void Reset();
  void Bury(const Process* process);

  // How many calls of a rank have ended whole: with what every rank gave.
  size_t Whole(int rank) const { return ranks_[static_cast<size_t>(rank)].whole; }

 private:
  struct Rank {
    Process* process = nullptr;
    int life = 0;
    bool gone = false;
    size_t calls = 0;
    size_t whole = 0;
    // Of the call under way.
    Heard heard;
  };
  struct Round {
    std::map<int, Share> shares;
    bool complete = false;
  };
  void Enter(int rank, Share share, Heard heard);
  void CompleteIfAll(size_t round);
  void Deliver(int rank, size_t round);
  void Answer(int rank, absl::StatusOr<Shares> answer);
  bool Parted() const;
  void Fail(Millis least, Millis most);

  World* const world_;
  Network* const network_;
  std::vector<Rank> ranks_;
  std::map<size_t, Round> rounds_;
  bool broken_ = false;
};

}  // namespace polystill::simulation
