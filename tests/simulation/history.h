#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/run_events.h"
#include "coordinator/state_store.h"
#include "student_worker/lineage.h"

namespace polystill::simulation {

// A model's state in the simulation is the digest of all that made it.
struct ModelState {
  uint64_t digest = 0;
  int64_t step = 0;
};
ModelState InitialState(const std::string& job);
std::string DigestText(uint64_t digest);

constexpr int64_t kBatch = 6;
// The records of a step's global batch: the plan of every job here.
std::vector<int64_t> PlanOf(int64_t step);

// Sees all that happens, and names the first thing that breaks an invariant of docs/elastic.md. Knows nothing of how
// workers and coordinators decide.
class History {
 public:
  struct Checkpoint {
    ModelState state;
    bool whole = false;
  };

  const std::string& violation() const { return violation_; }
  void Break(std::string what);
  // Of the last coordinator.
  int64_t term() const { return term_; }

  // Durable records, as the store took them.
  void TermBegan(int64_t term);
  void GenerationRecorded(int64_t term, const coordinator::StateStore::Generation& generation);
  void CheckpointRecorded(int64_t term, const std::string& job, const coordinator::StateStore::Checkpoint& checkpoint);
  void CheckpointDropped(int64_t term, const std::string& job, const std::string& path);
  // One that was not admitted.
  void StrayDeleted(const std::string& path);
  void JobRecorded(int64_t term, const std::string& job, const std::string& digest, int64_t steps);
  void ScaleRecorded(int64_t term, int64_t workers);
  // What a coordinator starts from.
  void Recovered(const coordinator::StateStore::Generation& generation,
                 const std::map<std::string, std::vector<coordinator::StateStore::Checkpoint>>& checkpoints,
                 const std::map<std::string, std::string>& finished, int64_t wanted_workers);
  // An assignment leaves a coordinator.
  void Assigned(const v1::WorkerOrder::Assignment& assignment, const std::string& worker);

  // Words to a coordinator and orders to a worker.
  bool IsOfOlderGeneration(int64_t generation) const { return generation < last_.number; }

  // Workers. `who` takes part as `rank` of `world` in generation `number`.
  struct Part {
    std::string job;
    int64_t number = 0;
    int rank = 0;
    int world = 1;
  };
  // A rank says what it holds.
  void Noted(const Part& part, const student_worker::StateName& name, uint64_t digest);
  void Chosen(const Part& part, const student_worker::Source& source, const std::vector<v1::StateNote>& notes,
              const v1::WorkerOrder::Assignment& assignment);
  void Loaded(const std::string& path);
  void Agreed(const Part& part, ModelState state);
  void Applying(const Part& part, bool whole, bool labelled);
  void Applied(const Part& part, ModelState before, ModelState after, const std::vector<int64_t>& positions);
  void Left(const Part& part);
  // What it held when something that must change nothing had changed it.
  void ChangedByStale(const std::string& who, const std::string& what);

  // The disk that all share.
  std::map<std::string, Checkpoint>& disk() { return disk_; }

  // Applied steps of a job, by whoever is ahead.
  int64_t Ahead(const std::string& job) const;

 private:
  struct Step {
    uint64_t parent = 0;
    int64_t step = 0;
    std::vector<int64_t> positions;
  };
  struct Agreement {
    uint64_t digest = 0;
    std::set<int> ranks;
  };
  void OneDigest(const std::string& job, const student_worker::StateName& name, uint64_t digest);
  void PresentTerm(int64_t term, const char* what);
  bool IsAncestor(uint64_t ancestor, uint64_t digest) const;
  // Steps in the ancestry, down to the initial weights; -1 when one is missing or out of the plan.
  int64_t CheckAncestry(const std::string& job, uint64_t digest);

  std::string violation_;
  int64_t term_ = 0;
  coordinator::StateStore::Generation last_;
  std::set<int64_t> formed_;
  std::map<std::string, std::map<std::string, coordinator::StateStore::Checkpoint>> admitted_;
  // Path -> digest.
  std::map<std::string, std::string> ever_admitted_;
  std::map<std::string, std::string> finished_;
  int64_t wanted_ = 0;
  std::map<std::string, Checkpoint> disk_;
  std::map<uint64_t, Step> steps_;
  std::map<std::pair<std::string, student_worker::StateName>, uint64_t> names_;
  std::map<int64_t, Agreement> agreements_;
  // (generation, rank) -> steps applied, of those at work.
  std::map<int64_t, std::map<int, int64_t>> at_work_;
  std::map<std::string, int64_t> ahead_;
};

// The digest of a state after a step.
ModelState After(ModelState before, const std::vector<int64_t>& positions, int64_t generation);

}  // namespace polystill::simulation
