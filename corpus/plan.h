#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// Where one record of a step is.
struct RecordRef {
  // Index into index.languages.
  int language = 0;
  // Passes over the language completed before.
  int64_t pass = 0;
  // Index into index.languages[language].blocks.
  int block = 0;
  // Ordinal among the block's kept records, in the file's order.
  int64_t row = 0;

  bool operator==(const RecordRef&) const = default;
};

// The pure function (segment, step) -> the records of that step's global batch. It depends on the segment and the index
// alone: not on workers, machines or time.
//
// Languages: cycles of C steps; in each, every language gets its exact share of C * batch_size positions by largest
// remainder, its k-th position at (k + u) / n of the cycle; C is large enough for every language to get one at least.
// Within a language: each pass visits every record once, in an order of its own: blocks are permuted, then records are
// shuffled inside windows of whole blocks. Of more than 256 blocks it is first sections of about sqrt(blocks) blocks,
// spread over the corpus, that are permuted, then the blocks of as many sections as hold eight windows
// (corpus/pass_order.h): so any step is found in O(batch_size * log(blocks) + languages * (sqrt(blocks) + blocks of
// eight windows)), with no state. What a step leaves over goes into the next; every step has batch_size records.
// Positions count from segment.first_step. Orders are keyed by the languages' names: one more language changes how
// often the others are drawn, never their order.
//
// Thread-compatible: const methods may run at once.
class Plan {
 public:
  // INVALID_ARGUMENT when the segment does not fit the index (digest, algorithm version, batch size, empty index).
  static absl::StatusOr<Plan> Create(v1::PlanSegment segment, std::shared_ptr<const v1::CorpusIndex> index);
  ~Plan();
  Plan(Plan&&) noexcept;
  Plan& operator=(Plan&&) noexcept;

  // The records at positions [first, last) of the global batch of `step` (0 <= first <= last <= batch_size, step at
  // least segment.first_step).
  std::vector<RecordRef> Slice(int64_t step, int64_t first, int64_t last) const;

  // Positions of a global batch that `rank` of `world_size` takes: [first, last). Contiguous, in rank order, sizes
  // differ by one at most; empty slices are possible.
  struct Range {
    int64_t first = 0;
    int64_t last = 0;
  };
  static Range SliceOf(int64_t batch_size, int rank, int world_size);

  // Steps after which `epochs` times the number of records of all languages have been drawn, or as many as the mixture
  // can give (MostRecords); at least 1. INVALID_ARGUMENT when they cannot be counted.
  absl::StatusOr<int64_t> StepsForEpochs(double epochs) const;

  // Steps of a cycle, and how many positions each language has in it.
  int64_t cycle_steps() const;
  const std::vector<int64_t>& quotas() const;

  const v1::PlanSegment& segment() const;
  const v1::CorpusIndex& index() const;

 private:
  struct State;
  explicit Plan(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::corpus
