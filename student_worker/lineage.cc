#include "student_worker/lineage.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace polystill::student_worker {
namespace {

StateName NameOf(const v1::StateNote& note) { return {note.state_generation(), note.step()}; }

// States of one name are one state.
absl::Status CompareNamesakes(const std::vector<v1::StateNote>& notes) {
  std::map<StateName, size_t> first;
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    const StateName name = NameOf(notes[rank]);
    if (!name.held()) continue;
    const size_t other = first.emplace(name, rank).first->second;
    if (notes[rank].digest() == notes[other].digest()) continue;
    return absl::InternalError(absl::StrCat("replicas apart after step ", name.step, " of generation ", name.generation,
                                            ": rank ", other, " holds ", notes[other].digest(), ", rank ", rank,
                                            " holds ", notes[rank].digest()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Source> ChooseSource(const std::vector<v1::StateNote>& notes,
                                    const v1::WorkerOrder::Assignment& assignment) {
  if (absl::Status one = CompareNamesakes(notes); !one.ok()) return one;
  Source source;
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    const StateName name = NameOf(notes[rank]);
    if (!name.held() || (source.rank >= 0 && name <= source.state)) continue;
    source = {Source::Kind::kMemory, name, static_cast<int>(rank), notes[rank].digest()};
  }
  const StateName admitted{assignment.checkpoint_generation(), assignment.checkpoint_step()};
  if (!assignment.checkpoint().empty() && (source.rank < 0 || admitted > source.state)) {
    return Source{Source::Kind::kCheckpoint, admitted};
  }
  if (source.rank < 0) return source;
  for (size_t rank = 0; rank < notes.size(); ++rank) {
    if (NameOf(notes[rank]) != source.state) source.receivers.push_back(static_cast<int>(rank));
  }
  return source;
}

}  // namespace polystill::student_worker
