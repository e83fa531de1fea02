#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "collectives/group.h"
#include "corpus/record.h"
#include "corpus/tokenizer.h"
#include "models/model.h"
#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/training.pb.h"
#include "student_worker/job_link.h"
#include "student_worker/masker.h"

namespace polystill::student_worker {

// This rank's part of the held-out records of an early-stopping job, as token ids in memory: each record is with one
// rank, in contiguous parts of the index's order. Not thread-safe.
class HeldOut {
 public:
  // `tokenizer`: null when the corpus holds token ids. FAILED_PRECONDITION names a record without a gold label; else
  // the errors of JobLink::GetIndex and corpus::Reader.
  static absl::StatusOr<std::unique_ptr<HeldOut>> Load(const v1::WorkerOrder::Assignment& assignment, JobLink* link,
                                                       const corpus::Tokenizer* tokenizer);

  // A collective: the job's metric of `model` on the records of all ranks, the same number on each of them and for any
  // number of them. FAILED_PRECONDITION: logits that are not finite, or nothing
  // to judge; UNAVAILABLE: a peer is gone.
  absl::StatusOr<double> Measure(const models::Model& model, collectives::Group* group) const;

 private:
  struct Language {
    std::string name;
    models::Rows tokens;
    // Of tasks that judge tokens, which of each row's.
    models::Rows positions;
    // Gold labels of each row, as GoldOf or JudgedTokensOf give them.
    std::vector<std::vector<int64_t>> gold;
  };
  HeldOut(const v1::Job& job, std::optional<Masker> masker) : job_(job), masker_(std::move(masker)) {}
  absl::Status Add(const corpus::Record& record, const corpus::Tokenizer* tokenizer, Language* language) const;
  bool HasLabel(const corpus::Record& record) const;
  absl::StatusOr<v1::HeldOutCounts> Count(const models::Model& model) const;
  absl::Status CountSome(const models::Model& model, const Language& language, size_t first, size_t last,
                         v1::HeldOutCounts::Language* counts) const;

  const v1::Job& job_;
  const std::optional<Masker> masker_;  // task masked_lm alone
  std::vector<Language> languages_;
};

}  // namespace polystill::student_worker
