#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/plan.h"
#include "polystill/v1/label_store.pb.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {

// Labels that lie in a store, by record: what a LabelClient would have answered, through the same decoders. Row groups
// are held, and which record is in which row, at most `cache_bytes` of both, the least recently used go first; a part's
// SHA-256 is compared when it is opened first. Thread-compatible: one thread at a time.
class LabelStore {
 public:
  struct Options {
    int64_t cache_bytes = int64_t{512} << 20;
  };
  // NOT_FOUND, DATA_LOSS, INVALID_ARGUMENT as ReadStore.
  static absl::StatusOr<std::unique_ptr<LabelStore>> Open(const std::string& folder, Options options);
  static absl::StatusOr<std::unique_ptr<LabelStore>> Open(const std::string& folder) { return Open(folder, Options()); }
  ~LabelStore();

  const std::string& folder() const;
  const v1::LabelStoreManifest& manifest() const;

  // The records that Read is asked for are of this index. FAILED_PRECONDITION when the store does not hold them
  // (CheckHolds).
  absl::Status UseIndex(std::shared_ptr<const v1::CorpusIndex> index);

  // The outputs that Read may be asked for, of those that the store's spec names; no other is read from the disk.
  // Before the first Read.
  void UseOutputs(const Outputs& outputs);

  // The labels of `outputs` about `inputs`, whose places in the corpus `refs` are.
  // NOT_FOUND: no label of a record; DATA_LOSS: a part that is gone or torn, labels that fail the checks of an answer.
  // The message names the record, and the part.
  absl::StatusOr<LabelClient::Labels> Read(const Outputs& outputs, const std::vector<corpus::RecordRef>& refs,
                                           const std::vector<v1::LabelInput>& inputs);

  // With codec hidden_head, the teacher's output head, as FetchHead gives it. DATA_LOSS when it is torn.
  absl::StatusOr<std::string> ReadHead() const;

  // Row groups decoded since Open.
  int64_t groups_decoded() const;

 private:
  struct State;
  explicit LabelStore(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace polystill::soft_labels
