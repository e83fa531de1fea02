#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/jobs.h"
#include "coordinator/run_events.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// What the stages before the jobs make.
struct Stages {
  PreparedJobs prepared;
  // Digest -> index. Equal selections share one.
  std::map<std::string, std::shared_ptr<const v1::CorpusIndex>> indexes;
};

// The part of RunStages that writes nothing: indexes, plans and steps.
absl::StatusOr<Stages> IndexJobs(const v1::RunSpec& spec, const std::function<void(StageProgress)>& progress,
                                 const std::atomic<bool>& stop);

// Indexes the selection of every job, gives each job its plan and steps, and trains the tokeniser. Takes as long as the
// corpus is large: run it on a thread of its own. `progress` is called from that thread. CANCELLED soon after `stop` is
// set (what is under way is finished first). A tokeniser that is there already with SHA-256 `tokenizer_digest` is kept.
// Otherwise the errors of BuildIndex, Plan::Create, WithDigests and TrainTokenizer.
absl::StatusOr<Stages> RunStages(const v1::RunSpec& spec, const std::function<void(StageProgress)>& progress,
                                 const std::atomic<bool>& stop, const std::string& tokenizer_digest = "");

// The bytes of an index as GetIndex sends them.
std::string IndexBytes(const v1::CorpusIndex& index);

}  // namespace polystill::coordinator
