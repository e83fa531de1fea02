#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/soft_label.pb.h"

namespace polystill::soft_labels {

struct LabelJobOptions {
  // host:port of the replicas of one teacher.
  std::vector<std::string> teachers;
  // Which records: corpus, where and languages; what else a selection says follows from the teacher.
  v1::Selection selection;
  // The side that the teacher reads.
  v1::Side reads = v1::SIDE_TEXT;
  // What it is asked for: outputs ("logits" when none are named), codec and its settings.
  v1::LabelSpec spec;
  // Folder of the store.
  std::string out;
  // Records of a part, at most: what is asked for again after a crash.
  int64_t part_records = 10'000;
};

// How far a label job is.
struct LabelProgress {
  // Until the corpus is indexed, total is 0.
  int64_t total = 0;
  // Records whose labels are in parts that are whole, or wait to be written; those of earlier processes included.
  int64_t done = 0;
  // Of these, labelled by this process, and their labels' bytes as encoded.
  int64_t labelled = 0;
  int64_t bytes = 0;
};

// Asks a teacher for the labels of every record of a selection, and writes them to a label store (docs/formats.md):
//
//   1. Connect; index the corpus; take up the folder, or begin it (StoreFolder).
//   2. For each part that is not whole: read its records block by block, ask for calls of them, over all replicas, as
//      many at once as the replicas have credits for and kMostBytesInFlight allows.
//   3. Write the answers in the corpus's order, a part at a time, whole or not at all.
//   4. Seal the store with its manifest.
//
// `progress` is called from this thread, after each step. CANCELLED soon after `stop` is set: what is whole stays, and
// the same options go on from there. Else the errors of BuildIndex, LabelClient, StoreFolder and PartWriter, with the
// record or file to blame. INVALID_ARGUMENT: the teacher cannot be asked so.
absl::Status RunLabelJob(const LabelJobOptions& options, const std::atomic<bool>& stop,
                         const std::function<void(const LabelProgress&)>& progress);

}  // namespace polystill::soft_labels
