#include "student_worker/held_out.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/plan.h"
#include "corpus/reader.h"
#include "models/probabilities.h"
#include "runtime/status.h"
#include "student_worker/early_stopping.h"
#include "student_worker/inputs.h"

namespace polystill::student_worker {
namespace {

// Records of one round of forwards, to bound the memory of the logits.
constexpr size_t kRecordsAtOnce = 256;

int64_t RecordsOf(const v1::CorpusIndex& index) {
  int64_t records = 0;
  for (const auto& language : index.languages()) records += language.records();
  return records;
}

void AddOne(int cell, v1::HeldOutCounts::Language* counts) { counts->set_confusion(cell, counts->confusion(cell) + 1); }

// A judged record or token.
void AddJudged(double loss, bool right, v1::HeldOutCounts::Language* counts) {
  counts->set_loss(counts->loss() + std::llround(std::ldexp(loss, 32)));
  counts->set_judged(counts->judged() + 1);
  counts->set_right(counts->right() + (right ? 1 : 0));
}

// One class of several: logits [rows, classes], float64. Of token ids no confusion is counted, there are too many.
void CountClasses(const at::Tensor& logits, const std::vector<int64_t>& gold, v1::HeldOutCounts::Language* counts) {
  const at::Tensor predicted = logits.argmax(1).contiguous();
  const at::Tensor log_probabilities = at::log_softmax(logits, 1).contiguous();
  const int64_t classes = logits.size(1);
  for (size_t row = 0; row < gold.size(); ++row) {
    const int64_t said = predicted.const_data_ptr<int64_t>()[row];
    if (counts->confusion_size() > 0) AddOne(static_cast<int>(gold[row] * classes + said), counts);
    AddJudged(-log_probabilities.const_data_ptr<double>()[row * classes + gold[row]], said == gold[row], counts);
  }
}

// Labels that each hold or not: logits [rows, labels], float64.
void CountLabels(const at::Tensor& logits, const std::vector<int64_t>& gold, v1::HeldOutCounts::Language* counts) {
  const int64_t labels = logits.size(1);
  const double* value = logits.const_data_ptr<double>();
  for (int64_t row = 0; row < logits.size(0); ++row) {
    double loss = 0;
    bool right = true;
    for (int64_t label = 0; label < labels; ++label, ++value) {
      const bool holds = gold[row * labels + label] != 0, said = *value > 0;
      if (holds || said) AddOne(static_cast<int>(3 * label + (said && holds ? 0 : holds ? 1 : 2)), counts);
      right = right && said == holds;
      // - log sigmoid of what is true.
      const double against = holds ? -*value : *value;
      loss += std::max(against, 0.0) + std::log1p(std::exp(-std::abs(against)));
    }
    AddJudged(loss, right, counts);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<HeldOut>> HeldOut::Load(const v1::WorkerOrder::Assignment& assignment, JobLink* link,
                                                       const corpus::Tokenizer* tokenizer) {
  const v1::Job& job = assignment.job();
  ASSIGN_OR_RETURN(v1::CorpusIndex fetched, link->GetIndex(job.validation_index_digest()));
  const auto index = std::make_shared<const v1::CorpusIndex>(std::move(fetched));
  ASSIGN_OR_RETURN(const auto reader, corpus::Reader::Open(index));
  const auto mine = corpus::Plan::SliceOf(RecordsOf(*index), assignment.rank(), assignment.world_size());
  ASSIGN_OR_RETURN(std::optional<Masker> masker, Masker::Of(job, tokenizer));
  std::unique_ptr<HeldOut> held_out(new HeldOut(job, std::move(masker)));
  int64_t position = 0;
  for (int l = 0; l < index->languages_size(); ++l) {
    Language language{index->languages(l).name(), {}, {}, {}};
    for (int b = 0; b < index->languages(l).blocks_size(); ++b) {
      const int64_t end = position + index->languages(l).blocks(b).records();
      const bool touches = position < mine.last && end > mine.first;
      std::vector<corpus::Record> records;
      if (touches) {
        ASSIGN_OR_RETURN(records, reader->ReadBlock(l, b));
      }
      for (int64_t i = std::max(position, mine.first); touches && i < std::min(end, mine.last); ++i) {
        const corpus::Record& record = records[i - position];
        RETURN_IF_ERROR(held_out->Add(record, tokenizer, &language));
      }
      position = end;
    }
    if (!language.gold.empty()) held_out->languages_.push_back(std::move(language));
  }
  return held_out;
}

bool HeldOut::HasLabel(const corpus::Record& record) const {
  const bool list = job_.task() == v1::TASK_MULTI_LABEL || models::JudgesTokens(job_.task());
  return list ? !record.labels.empty() : record.label >= 0;
}

absl::Status HeldOut::Add(const corpus::Record& record, const corpus::Tokenizer* tokenizer, Language* language) const {
  if (!masker_.has_value() && !HasLabel(record)) {
    return absl::FailedPreconditionError(
        absl::StrCat("held-out record '", record.id,
                     "' has no label, which early_stopping needs; leave such records out with its `where`"));
  }
  Tokens tokens = TokensOf(record, job_.reads(), tokenizer);
  if (models::JudgesTokens(job_.task())) {
    JudgedTokens judged =
        masker_.has_value() ? masker_->HideInRecord(record.id, &tokens.ids) : JudgedTokensOf(record, tokens);
    language->positions.push_back(std::move(judged.positions));
    language->gold.push_back(std::move(judged.gold));
  } else {
    language->gold.push_back(GoldOf(job_.task(), record));
  }
  language->tokens.push_back(std::move(tokens.ids));
  return absl::OkStatus();
}

absl::Status HeldOut::CountSome(const models::Model& model, const Language& language, size_t first, size_t last,
                                v1::HeldOutCounts::Language* counts) const {
  const models::Rows rows(language.tokens.begin() + first, language.tokens.begin() + last);
  models::Wanted wanted;
  if (!language.positions.empty()) {
    wanted.positions.assign(language.positions.begin() + first, language.positions.begin() + last);
  }
  std::vector<int64_t> gold;
  for (size_t i = first; i < last; ++i) gold.insert(gold.end(), language.gold[i].begin(), language.gold[i].end());
  if (gold.empty()) return absl::OkStatus();
  const at::Tensor logits = models::FixedShapeForward(model, rows, wanted).logits.to(at::kDouble);
  if (!at::isfinite(logits).all().item<bool>()) {
    return absl::FailedPreconditionError("logits of the held-out records are not finite; lower the learning rate");
  }
  if (job_.task() == v1::TASK_MULTI_LABEL) {
    CountLabels(logits, gold, counts);
  } else {
    CountClasses(models::LabelLogits(job_.task(), logits), gold, counts);
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::HeldOutCounts> HeldOut::Count(const models::Model& model) const {
  const at::NoGradGuard no_grad;
  const int labels = job_.labels_size();
  v1::HeldOutCounts counts;
  for (const Language& language : languages_) {
    auto* out = counts.add_languages();
    out->set_name(language.name);
    out->mutable_confusion()->Resize(job_.task() == v1::TASK_MULTI_LABEL ? 3 * labels : labels * labels, 0);
    const size_t at_once = masker_.has_value() ? models::kRowsPerForward : kRecordsAtOnce;
    for (size_t first = 0; first < language.gold.size(); first += at_once) {
      const size_t last = std::min(language.gold.size(), first + at_once);
      RETURN_IF_ERROR(CountSome(model, language, first, last, out));
    }
  }
  return counts;
}

absl::StatusOr<double> HeldOut::Measure(const models::Model& model, collectives::Group* group) const {
  v1::HeldOutCounts mine;
  try {
    ASSIGN_OR_RETURN(mine, Count(model));
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("held-out records: ", error.what_without_backtrace()));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> answers, group->AllGather(mine.SerializeAsString()));
  std::vector<v1::HeldOutCounts> parts(answers.size());
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    if (!parts[rank].ParseFromString(answers[rank])) {
      return absl::InternalError(absl::StrCat("rank ", rank, " sent something else than its held-out counts"));
    }
  }
  const double value = MetricOf(job_.early_stopping().metric(), Sum(parts), job_.labels_size(), job_.task());
  if (std::isnan(value)) return absl::FailedPreconditionError("the held-out records of early_stopping judge nothing");
  return value;
}

}  // namespace polystill::student_worker
