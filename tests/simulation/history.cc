#include "tests/simulation/history.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace polystill::simulation {
namespace {

using coordinator::StateStore;
using student_worker::Source;
using student_worker::StateName;

// FNV-1a over 64-bit words.
uint64_t Mix(uint64_t hash, uint64_t word) {
  for (int byte = 0; byte < 8; ++byte) {
    hash ^= (word >> (8 * byte)) & 0xff;
    hash *= 0x100000001b3;
  }
  return hash;
}

}  // namespace

ModelState InitialState(const std::string& job) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : job) hash = Mix(hash, static_cast<unsigned char>(c));
  return {hash, 0};
}

std::string DigestText(uint64_t digest) {
  char text[17];
  std::snprintf(text, sizeof(text), "%016" PRIx64, digest);
  return text;
}

std::vector<int64_t> PlanOf(int64_t step) {
  std::vector<int64_t> positions(kBatch);
  for (int64_t i = 0; i < kBatch; ++i) positions[static_cast<size_t>(i)] = (step - 1) * kBatch + i;
  return positions;
}

// The generation is part of it: sums over other ranks differ in their last bits.
ModelState After(ModelState before, const std::vector<int64_t>& positions, int64_t generation) {
  uint64_t hash = Mix(Mix(before.digest, static_cast<uint64_t>(before.step + 1)), static_cast<uint64_t>(generation));
  for (const int64_t position : positions) hash = Mix(hash, static_cast<uint64_t>(position));
  return {hash, before.step + 1};
}

void History::Break(std::string what) {
  if (violation_.empty()) violation_ = std::move(what);
}

void History::TermBegan(int64_t term) {
  if (term <= term_) Break(absl::StrCat("7: term ", term, " begins after term ", term_));
  term_ = std::max(term_, term);
}

void History::PresentTerm(int64_t term, const char* what) {
  if (term < term_) Break(absl::StrCat("6: a coordinator of term ", term, " records ", what, " in term ", term_));
}

void History::GenerationRecorded(int64_t term, const StateStore::Generation& generation) {
  PresentTerm(term, "a generation");
  if (!formed_.insert(generation.number).second || generation.number <= last_.number) {
    Break(absl::StrCat("1: generation ", generation.number, " is formed after generation ", last_.number));
  }
  last_ = generation;
}

void History::CheckpointRecorded(int64_t term, const std::string& job, const StateStore::Checkpoint& checkpoint) {
  PresentTerm(term, "a checkpoint");
  if (checkpoint.generation != last_.number) {
    Break(absl::StrCat("6: a checkpoint of generation ", checkpoint.generation, " is admitted in generation ",
                       last_.number));
  }
  const auto written = disk_.find(checkpoint.path);
  if (written == disk_.end() || !written->second.whole) {
    Break(absl::StrCat("8: ", checkpoint.path, " is admitted before it is whole"));
  } else if (DigestText(written->second.state.digest) != checkpoint.digest) {
    Break(absl::StrCat("8: ", checkpoint.path, " holds another state than the one that is admitted"));
  }
  std::erase_if(admitted_[job], [&](const auto& other) { return other.second.step == checkpoint.step; });
  admitted_[job][checkpoint.path] = checkpoint;
  ever_admitted_[checkpoint.path] = checkpoint.digest;
}

void History::CheckpointDropped(int64_t term, const std::string& job, const std::string& path) {
  PresentTerm(term, "that a checkpoint is dropped");
  admitted_[job].erase(path);
}

void History::StrayDeleted(const std::string& path) {
  for (const auto& [job, admitted] : admitted_) {
    if (admitted.contains(path)) Break(absl::StrCat("8: ", path, " is deleted, which is admitted"));
  }
}

void History::ScaleRecorded(int64_t term, int64_t workers) {
  PresentTerm(term, "an order to scale");
  wanted_ = workers;
}

void History::JobRecorded(int64_t term, const std::string& job, const std::string& digest, int64_t steps) {
  PresentTerm(term, "a finished job");
  const bool again = !finished_.emplace(job, digest).second;
  if (steps == 0) return;  // an evaluation is done again by each coordinator
  if (again) Break(absl::StrCat("7: ", job, " is finished twice"));
  uint64_t number = 0;
  std::sscanf(digest.c_str(), "%" SCNx64, &number);
  const int64_t held = CheckAncestry(job, number);
  if (held != steps) {
    Break(absl::StrCat("4: ", job, " ends with a state of ", held, " steps of the plan, not of ", steps));
  }
}

void History::Recovered(const StateStore::Generation& generation,
                        const std::map<std::string, std::vector<StateStore::Checkpoint>>& checkpoints,
                        const std::map<std::string, std::string>& finished, int64_t wanted_workers) {
  if (generation != last_) {
    Break(absl::StrCat("7: generation ", last_.number, " of ", absl::StrJoin(last_.members, ","),
                       " was durable, after a restart it is ", generation.number, " of ",
                       absl::StrJoin(generation.members, ",")));
  }
  if (finished != finished_) Break("7: a job that was finished is not after a restart");
  if (wanted_workers != wanted_) Break("7: an order to scale is forgotten after a restart");
  for (const auto& [job, admitted] : admitted_) {
    const auto found = checkpoints.find(job);
    if (admitted.size() != (found == checkpoints.end() ? 0 : found->second.size())) {
      Break(absl::StrCat("7: a checkpoint of ", job, " that was admitted is not after a restart"));
    }
  }
}

void History::Assigned(const v1::WorkerOrder::Assignment& assignment, const std::string& worker) {
  const size_t rank = static_cast<size_t>(assignment.rank());
  if (assignment.term() < term_) return;  // on its way to nobody: its generation is not recorded
  if (assignment.generation() != last_.number || rank >= last_.members.size() || last_.members[rank] != worker ||
      last_.members.size() != static_cast<size_t>(assignment.world_size())) {
    Break(absl::StrCat("7: ", worker, " is assigned rank ", rank, " of generation ", assignment.generation(),
                       " before that is durable"));
  }
  if (assignment.checkpoint().empty()) return;
  const auto& admitted = admitted_[assignment.job().name()];
  if (!admitted.contains(assignment.checkpoint())) {
    Break(absl::StrCat("8: ", assignment.checkpoint(), " is assigned, which is not admitted"));
  }
}

void History::OneDigest(const std::string& job, const StateName& name, uint64_t digest) {
  const auto [known, fresh] = names_.emplace(std::pair(job, name), digest);
  if (fresh || known->second == digest) return;
  Break(absl::StrCat("4: two states of ", job, " are named (", name.generation, ", ", name.step,
                     "): ", DigestText(known->second), " and ", DigestText(digest)));
}

void History::Noted(const Part& part, const StateName& name, uint64_t digest) {
  if (name.held()) OneDigest(part.job, name, digest);
}

void History::Chosen(const Part& part, const Source& source, const std::vector<v1::StateNote>& notes,
                     const v1::WorkerOrder::Assignment& assignment) {
  StateName greatest{-1, -1};
  for (const v1::StateNote& note : notes) {
    if (note.step() >= 0) greatest = std::max(greatest, StateName{note.state_generation(), note.step()});
  }
  const bool in_memory = greatest.held();
  if (!assignment.checkpoint().empty()) {
    greatest = std::max(greatest, StateName{assignment.checkpoint_generation(), assignment.checkpoint_step()});
  }
  if (!greatest.held()) greatest = {0, 0};
  if (source.state != greatest) {
    Break(absl::StrCat("3: generation ", part.number, " goes on from (", source.state.generation, ", ",
                       source.state.step, "), not from (", greatest.generation, ", ", greatest.step, ")"));
  }
  if (source.kind == Source::Kind::kInitial && in_memory) Break("3: the weights are made anew while a state is held");
}

void History::Loaded(const std::string& path) {
  // Also one that has been struck since, by a worker that is late: nothing comes of that.
  const auto admitted = ever_admitted_.find(path);
  const auto written = disk_.find(path);
  if (admitted == ever_admitted_.end()) return Break(absl::StrCat("8: ", path, " is loaded, which is not admitted"));
  if (written == disk_.end() || !written->second.whole) return Break(absl::StrCat("8: ", path, " is loaded torn"));
  if (DigestText(written->second.state.digest) != admitted->second) {
    Break(absl::StrCat("8: ", path, " is loaded, which is not what was admitted"));
  }
}

void History::Agreed(const Part& part, ModelState state) {
  OneDigest(part.job, {part.number, state.step}, state.digest);
  Agreement& agreement = agreements_[part.number];
  if (agreement.ranks.empty()) {
    agreement.digest = state.digest;
    for (const auto& [path, checkpoint] : admitted_[part.job]) {
      // Members that nobody hears any more may still agree on what a later generation has left behind.
      if (checkpoint.generation >= part.number) continue;
      uint64_t digest = 0;
      std::sscanf(checkpoint.digest.c_str(), "%" SCNx64, &digest);
      if (!IsAncestor(digest, state.digest)) {
        Break(absl::StrCat("8: generation ", part.number, " leaves the lineage of ", path));
      }
    }
  }
  if (agreement.digest != state.digest) Break(absl::StrCat("2: ranks of generation ", part.number, " hold two states"));
  agreement.ranks.insert(part.rank);
  at_work_[part.number][part.rank] = state.step;
}

void History::Applying(const Part& part, bool whole, bool labelled) {
  if (!whole) Break(absl::StrCat("5: rank ", part.rank, " runs its optimiser before the reduction is whole"));
  if (!labelled) Break(absl::StrCat("rank ", part.rank, " applies a step without its labels"));
  const size_t agreed = agreements_[part.number].ranks.size();
  if (agreed != static_cast<size_t>(part.world)) {
    Break(absl::StrCat("2: rank ", part.rank, " works in generation ", part.number, " when ", agreed, " of ",
                       part.world, " ranks have agreed"));
  }
}

void History::Applied(const Part& part, ModelState before, ModelState after, const std::vector<int64_t>& positions) {
  OneDigest(part.job, {part.number, after.step}, after.digest);
  steps_[after.digest] = {before.digest, after.step, positions};
  if (positions != PlanOf(after.step)) {
    Break(absl::StrCat("4: step ", after.step, " of ", part.job, " holds ", absl::StrJoin(positions, ",")));
  }
  ahead_[part.job] = std::max(ahead_[part.job], after.step);
  auto& steps = at_work_[part.number];
  steps[part.rank] = after.step;
  for (const auto& [rank, step] : steps) {
    if (std::abs(step - after.step) <= 1) continue;
    Break(absl::StrCat("3: in generation ", part.number, " rank ", rank, " is at step ", step, ", rank ", part.rank,
                       " at ", after.step));
  }
}

void History::Left(const Part& part) { at_work_[part.number].erase(part.rank); }

void History::ChangedByStale(const std::string& who, const std::string& what) {
  Break(absl::StrCat("6: ", who, " is changed by ", what));
}

bool History::IsAncestor(uint64_t ancestor, uint64_t digest) const {
  while (digest != ancestor) {
    const auto step = steps_.find(digest);
    if (step == steps_.end()) return false;
    digest = step->second.parent;
  }
  return true;
}

int64_t History::CheckAncestry(const std::string& job, uint64_t digest) {
  int64_t count = 0;
  int64_t below = -1;
  for (auto step = steps_.find(digest); step != steps_.end(); step = steps_.find(digest)) {
    if (below >= 0 && step->second.step != below - 1) return -1;
    if (step->second.positions != PlanOf(step->second.step)) return -1;
    below = step->second.step;
    digest = step->second.parent;
    ++count;
  }
  return digest == InitialState(job).digest && (count == 0 || below == 1) ? count : -1;
}

int64_t History::Ahead(const std::string& job) const {
  const auto found = ahead_.find(job);
  return found == ahead_.end() ? 0 : found->second;
}

}  // namespace polystill::simulation
