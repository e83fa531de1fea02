#include "tests/simulation/durable_store.h"

#include <algorithm>

namespace polystill::simulation {

using coordinator::StateStore;

DurableStore::Content DurableStore::Open() {
  history_->TermBegan(++disk_.term);
  Content content = disk_;
  if (bugs_.generation_not_durable && content.generation.number > 0) --content.generation.number;
  if (bugs_.members_not_durable) content.generation.members.clear();
  for (auto& [job, admitted] : content.checkpoints) {
    while (!admitted.empty() && !history_->disk()[admitted.back().path].whole) admitted.pop_back();
  }
  history_->Recovered(content.generation, content.checkpoints, content.finished, content.wanted_workers);
  return content;
}

absl::Status DurableStore::Record(int64_t term, const coordinator::Action& action) {
  if (const auto* clean = std::get_if<coordinator::CleanCheckpoints>(&action)) Clean(*clean);
  if (const auto* stray = std::get_if<coordinator::DeleteCheckpoint>(&action)) {
    history_->StrayDeleted(stray->path);
    history_->disk().erase(stray->path);
  }
  const bool records = std::holds_alternative<coordinator::RecordGeneration>(action) ||
                       std::holds_alternative<coordinator::RecordWantedWorkers>(action) ||
                       std::holds_alternative<coordinator::RecordSegment>(action) ||
                       std::holds_alternative<coordinator::RecordInput>(action) ||
                       std::holds_alternative<coordinator::RecordCheckpoint>(action) ||
                       std::holds_alternative<coordinator::DropCheckpoint>(action) ||
                       std::holds_alternative<coordinator::RecordFinishedJob>(action) ||
                       std::holds_alternative<coordinator::ConfirmTerm>(action);
  if (!records) return absl::OkStatus();
  if (term < disk_.term && !bugs_.no_store_fence) {
    return absl::FailedPreconditionError("a later coordinator has taken over");
  }
  Take(term, action);
  return absl::OkStatus();
}

void DurableStore::Clean(const coordinator::CleanCheckpoints& clean) {
  std::erase_if(history_->disk(), [&](const auto& written) {
    const bool kept = std::any_of(clean.kept.begin(), clean.kept.end(),
                                  [&](const auto& checkpoint) { return checkpoint.path == written.first; });
    return !kept && written.first.starts_with(clean.folder + "/");
  });
}

void DurableStore::Take(int64_t term, const coordinator::Action& action) {
  if (const auto* generation = std::get_if<coordinator::RecordGeneration>(&action)) {
    history_->GenerationRecorded(term, generation->generation);
    disk_.generation = generation->generation;
  } else if (const auto* wanted = std::get_if<coordinator::RecordWantedWorkers>(&action)) {
    history_->ScaleRecorded(term, wanted->workers);
    disk_.wanted_workers = wanted->workers;
  } else if (const auto* segment = std::get_if<coordinator::RecordSegment>(&action)) {
    disk_.segments[segment->job] = segment->segment;
  } else if (const auto* admitted = std::get_if<coordinator::RecordCheckpoint>(&action)) {
    history_->CheckpointRecorded(term, admitted->job, admitted->checkpoint);
    auto& all = disk_.checkpoints[admitted->job];
    std::erase_if(all, [&](const auto& other) { return other.step == admitted->checkpoint.step; });
    all.push_back(admitted->checkpoint);
    std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.step < b.step; });
  } else if (const auto* dropped = std::get_if<coordinator::DropCheckpoint>(&action)) {
    history_->CheckpointDropped(term, dropped->job, dropped->path);
    std::erase_if(disk_.checkpoints[dropped->job], [&](const auto& other) { return other.path == dropped->path; });
    history_->disk().erase(dropped->path);
  } else if (const auto* done = std::get_if<coordinator::RecordFinishedJob>(&action)) {
    history_->JobRecorded(term, done->job, done->weights_digest, done->step);
    disk_.finished[done->job] = done->weights_digest;
  }
}

}  // namespace polystill::simulation
