#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/plan.h"
#include "corpus/record.h"
#include "polystill/v1/corpus.pb.h"

namespace polystill::corpus {

// Reads the records that a plan names. Holds decoded blocks in a cache of at most `cache_bytes` (least recently used
// goes first). Thread-compatible: one thread at a time.
class Reader {
 public:
  struct Options {
    // Decoded blocks held, in bytes. The current block is held whatever its size.
    int64_t cache_bytes = int64_t{512} << 20;
  };
  // Checks that every file still has the size that the index recorded (FAILED_PRECONDITION: the corpus changed) and
  // that every language's blocks are in order (INVALID_ARGUMENT).
  static absl::StatusOr<std::unique_ptr<Reader>> Open(std::shared_ptr<const v1::CorpusIndex> index, Options options);
  static absl::StatusOr<std::unique_ptr<Reader>> Open(std::shared_ptr<const v1::CorpusIndex> index) {
    return Open(std::move(index), Options());
  }
  ~Reader();

  // The records of `refs`, in their order. DATA_LOSS when a file is torn or a block no longer holds what was indexed.
  // INVALID_ARGUMENT when a record is not as it should be: an id that is missing or twice in its block, a text that is
  // null or not UTF-8, a token id out of the vocabulary, a label that is not listed. OUT_OF_RANGE: no such place.
  absl::StatusOr<std::vector<Record>> Read(const std::vector<RecordRef>& refs);

  // The records of one block, in the file's order. Fails as Read does.
  absl::StatusOr<std::vector<Record>> ReadBlock(int language, int block);

  // Blocks decoded since Open: how often each block is read per pass is blocks_decoded / (passes * blocks).
  int64_t blocks_decoded() const;

 private:
  struct State;
  explicit Reader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::corpus
