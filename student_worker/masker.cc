#include "student_worker/masker.h"

#include <algorithm>
#include <utility>

#include "corpus/masking.h"
#include "runtime/counter_rng.h"
#include "runtime/status.h"

namespace polystill::student_worker {
namespace {

constexpr uint64_t kStepWord = NameWord("tokens hidden in a step");
constexpr uint64_t kRecordWord = NameWord("tokens hidden in a record");

}  // namespace

absl::StatusOr<std::optional<Masker>> Masker::Of(const v1::Job& job, const corpus::Tokenizer* tokenizer) {
  if (job.task() != v1::TASK_MASKED_LM) return std::nullopt;
  if (tokenizer == nullptr) {
    return Masker(job.masking(), job.seed(), job.tokenizer().mask_id(), job.tokenizer().vocab_size(), 0, 0);
  }
  ASSIGN_OR_RETURN(const int32_t mask_id, tokenizer->MaskId());
  return Masker(job.masking(), job.seed(), mask_id, tokenizer->vocab_size(), tokenizer->before().size(),
                tokenizer->after().size());
}

JudgedTokens Masker::HideInStep(int64_t step, int64_t position, std::vector<int32_t>* ids) const {
  return Hide(CombineKey(seed_, kStepWord, step, position), ids);
}

JudgedTokens Masker::HideInRecord(const std::string& record, std::vector<int32_t>* ids) const {
  return Hide(CombineKey(kRecordWord, NameWord(record)), ids);
}

JudgedTokens Masker::Hide(uint64_t key, std::vector<int32_t>* ids) const {
  const std::vector<int32_t> text(ids->begin() + static_cast<ptrdiff_t>(before_),
                                  ids->end() - static_cast<ptrdiff_t>(after_));
  corpus::MaskedRow row = corpus::MaskTokens(text, masking_, mask_id_, vocab_size_, key);
  std::copy(row.ids.begin(), row.ids.end(), ids->begin() + static_cast<ptrdiff_t>(before_));
  for (int32_t& position : row.positions) position += static_cast<int32_t>(before_);
  JudgedTokens judged;
  judged.words = row.positions;
  judged.positions = std::move(row.positions);
  judged.gold.assign(row.targets.begin(), row.targets.end());
  return judged;
}

}  // namespace polystill::student_worker
