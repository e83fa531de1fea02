#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "corpus/tokenizer.h"
#include "polystill/v1/coordinator.pb.h"
#include "student_worker/inputs.h"

namespace polystill::student_worker {

// Task masked_lm: hides tokens of records, as the run says (corpus/masking.h). Thread-safe.
class Masker {
 public:
  // Nothing with another task. `tokenizer`: null when the corpus holds token ids. FAILED_PRECONDITION: no id stands for
  // a hidden token.
  static absl::StatusOr<std::optional<Masker>> Of(const v1::Job& job, const corpus::Tokenizer* tokenizer);

  // The tokens to find again; `ids` becomes what the model sees. In training each record of each step is hidden anew.
  JudgedTokens HideInStep(int64_t step, int64_t position, std::vector<int32_t>* ids) const;
  // The same tokens whenever the record is measured.
  JudgedTokens HideInRecord(const std::string& record, std::vector<int32_t>* ids) const;

  int32_t mask_id() const { return mask_id_; }

 private:
  Masker(const v1::Masking& masking, uint64_t seed, int32_t mask_id, int32_t vocab_size, size_t before, size_t after)
      : masking_(masking), seed_(seed), mask_id_(mask_id), vocab_size_(vocab_size), before_(before), after_(after) {}
  JudgedTokens Hide(uint64_t key, std::vector<int32_t>* ids) const;

  v1::Masking masking_;
  uint64_t seed_;
  int32_t mask_id_;
  int32_t vocab_size_;
  // Tokens that stand around each text, as [CLS] and [SEP] do: they are never hidden.
  size_t before_;
  size_t after_;
};

}  // namespace polystill::student_worker
