#include "student_worker/evaluator.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "corpus/reader.h"
#include "corpus/tokenizer.h"
#include "evaluation/predictions.h"
#include "models/package.h"
#include "models/probabilities.h"
#include "models/signature.h"
#include "runtime/cuda/device.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "student_worker/inputs.h"
#include "student_worker/latency.h"
#include "student_worker/masker.h"

namespace polystill::student_worker {
namespace {

// Records between two looks at the stop token and two reports.
constexpr size_t kRecordsAtOnce = 256;
// Records that latency is measured on, about: as many of each language.
constexpr int64_t kTimedRecords = 256;

// A model under evaluation.
struct Judged {
  std::string name;
  v1::Side reads = v1::SIDE_TEXT;
  models::Package package;
  std::shared_ptr<const corpus::Tokenizer> tokenizer;  // null when it reads token ids
};

absl::StatusOr<Judged> LoadJudged(const v1::EvaluatedModel& model, const v1::Job& job, at::Device device) {
  ASSIGN_OR_RETURN(models::Package package, models::LoadPackage(model.package(), device));
  const v1::Signature& signature = package.info.signature;
  RETURN_IF_ERROR(Annotate(models::CheckSignature(signature, job), model.package()));
  std::shared_ptr<const corpus::Tokenizer> tokenizer;
  if (signature.input() == v1::Signature::INPUT_TEXT) {
    ASSIGN_OR_RETURN(tokenizer, corpus::Tokenizer::Load(package.tokenizer_file, signature.max_length()));
  }
  return Judged{model.name(), model.reads(), std::move(package), std::move(tokenizer)};
}

// Words, or token ids, of which a model sees the beginning.
size_t WordsIn(const Tokens& tokens) { return tokens.firsts.empty() ? tokens.ids.size() : tokens.firsts.size(); }

// A row a record.
std::vector<evaluation::Prediction> RowsOfRecords(const std::vector<corpus::Record>& records) {
  std::vector<evaluation::Prediction> rows;
  for (const corpus::Record& record : records) {
    rows.push_back({record.id, record.language, record.group, std::max(record.label, 0), {}, record.labels});
  }
  return rows;
}

// Appends a row for each judged word, or hidden token, of a record. A record without a group is one: its words go wrong
// together.
void AppendWords(const corpus::Record& record, const JudgedTokens& judged, std::vector<evaluation::Prediction>* rows) {
  const std::string& group = record.group.empty() ? record.id : record.group;
  for (size_t i = 0; i < judged.words.size(); ++i) {
    rows->push_back({record.id, record.language, group, static_cast<int>(judged.gold[i]), {}, {}, judged.words[i]});
  }
}

// What logits [positions, token ids] say of the tokens that stood there.
std::vector<evaluation::Guess> GuessesOf(const at::Tensor& logits, const at::Tensor& gold) {
  const at::Tensor of_gold = logits.gather(1, gold.unsqueeze(1));
  const at::Tensor earlier = at::arange(logits.size(1)).unsqueeze(0).lt(gold.unsqueeze(1));
  const at::Tensor likelier = logits.gt(of_gold).logical_or(logits.eq(of_gold).logical_and(earlier));
  const at::Tensor ranks = likelier.sum(1).to(at::kInt).contiguous();
  const at::Tensor tokens = logits.argmax(1).to(at::kInt).contiguous();
  const at::Tensor logs = (of_gold.squeeze(1) - logits.logsumexp(1)).contiguous();
  std::vector<evaluation::Guess> guesses;
  for (int64_t i = 0; i < logits.size(0); ++i) {
    guesses.push_back(
        {tokens.const_data_ptr<int32_t>()[i], ranks.const_data_ptr<int32_t>()[i], logs.const_data_ptr<float>()[i]});
  }
  return guesses;
}

// Probabilities [rows][labels] at temperature 1 of logits in float32.
std::vector<std::vector<float>> ProbabilitiesOf(v1::Task task, const at::Tensor& logits) {
  const at::Tensor probabilities = models::Probabilities(task, logits).contiguous();
  const float* values = probabilities.const_data_ptr<float>();
  std::vector<std::vector<float>> rows;
  for (int64_t i = 0; i < probabilities.size(0); ++i, values += probabilities.size(1)) {
    rows.emplace_back(values, values + probabilities.size(1));
  }
  return rows;
}

// Adds to each row what the model says of it: of records, or of their tokens at `wanted`.
absl::Status AddAnswers(const Judged& judged, v1::Task task, const models::Rows& tokens, const models::Wanted& wanted,
                        std::vector<evaluation::Prediction>* rows) {
  try {
    const at::NoGradGuard no_grad;
    const at::Tensor logits = models::FixedShapeForward(*judged.package.model, tokens, wanted).logits.to(at::kFloat);
    if (!at::isfinite(logits).all().item<bool>()) {
      return absl::InternalError(absl::StrCat("model ", judged.name, " gives logits that are not finite"));
    }
    if (task == v1::TASK_MASKED_LM) {
      at::Tensor gold = at::empty({logits.size(0)}, at::kLong);
      for (int64_t i = 0; i < logits.size(0); ++i) gold.mutable_data_ptr<int64_t>()[i] = (*rows)[i].gold;
      const std::vector<evaluation::Guess> guesses = GuessesOf(logits, gold);
      for (size_t i = 0; i < rows->size(); ++i) (*rows)[i].guesses.push_back(guesses[i]);
    } else {
      std::vector<std::vector<float>> probabilities = ProbabilitiesOf(task, logits);
      for (size_t i = 0; i < rows->size(); ++i) (*rows)[i].probabilities.push_back(std::move(probabilities[i]));
    }
    return absl::OkStatus();
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("model ", judged.name, ": ", error.what_without_backtrace()));
  }
}

// One pass over the records of a selection.
class Evaluator {
 public:
  Evaluator(const v1::WorkerOrder::Assignment& assignment, const WorkerContext& context)
      : job_(assignment.job()), context_(context) {
    progress_.set_generation(assignment.generation());
  }

  absl::Status Prepare();
  absl::StatusOr<v1::WorkerMessage::Done> Run();

 private:
  // Task masked_lm: hidden tokens are those of one tokeniser.
  absl::Status CheckSameTokens(const Judged& one, const Judged& other) const;
  absl::Status JudgeBlock(std::vector<corpus::Record> records);
  // The rows of some records with every model's answers.
  absl::StatusOr<std::vector<evaluation::Prediction>> Ask(const std::vector<corpus::Record>& records);
  // The same with task masked_lm, where all models see the same tokens.
  absl::StatusOr<std::vector<evaluation::Prediction>> AskHidden(const std::vector<corpus::Record>& records);
  void KeepForTiming(int language, const std::vector<corpus::Record>& records);
  absl::Status MeasureLatencies();

  const v1::Job& job_;
  const WorkerContext& context_;
  std::vector<Judged> judged_;
  std::optional<Masker> masker_;  // task masked_lm alone
  // Tokens of a record that every model has room for.
  size_t max_tokens_ = SIZE_MAX;
  std::unique_ptr<corpus::Reader> reader_;
  std::shared_ptr<const v1::CorpusIndex> index_;
  std::unique_ptr<evaluation::PredictionsWriter> writer_;
  v1::WorkerMessage::Progress progress_;
  // Words (or token ids) that some model's max_length leaves no room for.
  int64_t cut_ = 0;
  std::vector<corpus::Record> timed_records_;
  std::map<int, int64_t> timed_of_language_;
};

absl::Status Evaluator::Prepare() {
  at::set_num_threads(std::max(job_.threads(), 1));
  ASSIGN_OR_RETURN(const at::Device device, cuda::OpenDevice(job_.device(), context_.gpu));
  std::vector<std::string> names;
  for (const v1::EvaluatedModel& model : job_.models()) {
    ASSIGN_OR_RETURN(Judged judged, LoadJudged(model, job_, device));
    if (!models::GivesLogits(judged.package.info.signature)) {
      return absl::FailedPreconditionError(absl::StrCat(model.package(), ": gives features alone, no logits that ",
                                                        model.name(), " could be judged by"));
    }
    RETURN_IF_ERROR(Annotate(judged.package.model->MoveTo(device), model.package()));
    judged_.push_back(std::move(judged));
    names.push_back(model.name());
    RETURN_IF_ERROR(CheckSameTokens(judged_.front(), judged_.back()));
    max_tokens_ = std::min<size_t>(max_tokens_, judged_.back().package.info.signature.max_length());
  }
  if (!judged_.empty()) {
    ASSIGN_OR_RETURN(masker_, Masker::Of(job_, judged_[0].tokenizer.get()));
  }
  ASSIGN_OR_RETURN(v1::CorpusIndex index, context_.link->GetIndex(job_.plan().index_digest()));
  index_ = std::make_shared<const v1::CorpusIndex>(std::move(index));
  ASSIGN_OR_RETURN(reader_, corpus::Reader::Open(index_));
  ASSIGN_OR_RETURN(writer_, evaluation::PredictionsWriter::Create(
                                job_.predictions(), {job_.labels().begin(), job_.labels().end()}, names, job_.task()));
  return absl::OkStatus();
}

absl::Status Evaluator::CheckSameTokens(const Judged& one, const Judged& other) const {
  if (job_.task() != v1::TASK_MASKED_LM || one.tokenizer == nullptr || other.tokenizer == nullptr) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::string of_one, Sha256File(one.package.tokenizer_file));
  ASSIGN_OR_RETURN(const std::string of_other, Sha256File(other.package.tokenizer_file));
  if (of_one == of_other) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("models ", one.name, " and ", other.name,
                                                    " have different tokenisers, so their tokens cannot be compared; "
                                                    "write tokenizer: {path: ",
                                                    one.package.tokenizer_file, "}"));
}

absl::Status Evaluator::JudgeBlock(std::vector<corpus::Record> records) {
  // The logits of hidden tokens are many.
  const size_t at_once = masker_.has_value() ? models::kRowsPerForward : kRecordsAtOnce;
  for (size_t first = 0; first < records.size(); first += at_once) {
    if (context_.stop.stop_requested()) return absl::CancelledError("stopped during the evaluation");
    const size_t last = std::min(records.size(), first + at_once);
    const std::vector<corpus::Record> some(std::make_move_iterator(records.begin() + first),
                                           std::make_move_iterator(records.begin() + last));
    for (const corpus::Record& record : some) ++(*progress_.mutable_records())[record.language];
    ASSIGN_OR_RETURN(const std::vector<evaluation::Prediction> rows, Ask(some));
    if (!rows.empty()) RETURN_IF_ERROR(writer_->Append(rows));
    context_.link->Report(progress_);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<evaluation::Prediction>> Evaluator::AskHidden(const std::vector<corpus::Record>& records) {
  std::vector<evaluation::Prediction> rows;
  models::Rows ids;
  models::Wanted wanted;
  for (const corpus::Record& record : records) {
    Tokens tokens = TokensOf(record, judged_[0].reads, judged_[0].tokenizer.get());
    if (tokens.ids.size() > max_tokens_) tokens.ids.resize(max_tokens_);
    const JudgedTokens judged = masker_->HideInRecord(record.id, &tokens.ids);
    AppendWords(record, judged, &rows);
    wanted.positions.push_back(judged.positions);
    ids.push_back(std::move(tokens.ids));
  }
  for (const Judged& judged : judged_) RETURN_IF_ERROR(AddAnswers(judged, job_.task(), ids, wanted, &rows));
  return rows;
}

absl::StatusOr<std::vector<evaluation::Prediction>> Evaluator::Ask(const std::vector<corpus::Record>& records) {
  if (masker_.has_value()) return AskHidden(records);
  std::vector<std::vector<Tokens>> tokens(judged_.size());  // [models][records]
  for (size_t m = 0; m < judged_.size(); ++m) {
    for (const corpus::Record& record : records) {
      tokens[m].push_back(TokensOf(record, judged_[m].reads, judged_[m].tokenizer.get()));
    }
  }
  const bool of_tokens = models::JudgesTokens(job_.task());
  std::vector<evaluation::Prediction> rows = of_tokens ? std::vector<evaluation::Prediction>() : RowsOfRecords(records);
  std::vector<models::Wanted> wanted(judged_.size());
  for (size_t i = 0; of_tokens && i < records.size(); ++i) {
    // Of models that cut a record in different places, all are judged on what each of them sees.
    size_t words = SIZE_MAX;
    for (const auto& of_model : tokens) words = std::min(words, WordsIn(of_model[i]));
    for (size_t m = 0; m < judged_.size(); ++m) {
      const JudgedTokens judged = JudgedTokensOf(records[i], tokens[m][i], words);
      wanted[m].positions.push_back(judged.positions);
      if (m > 0) continue;
      AppendWords(records[i], judged, &rows);
      cut_ += judged.cut;
    }
  }
  for (size_t m = 0; m < judged_.size() && !rows.empty(); ++m) {
    models::Rows ids;
    for (Tokens& some : tokens[m]) ids.push_back(std::move(some.ids));
    RETURN_IF_ERROR(AddAnswers(judged_[m], job_.task(), ids, wanted[m], &rows));
  }
  return rows;
}

void Evaluator::KeepForTiming(int language, const std::vector<corpus::Record>& records) {
  const int64_t each = (kTimedRecords + index_->languages_size() - 1) / index_->languages_size();
  int64_t& kept = timed_of_language_[language];
  for (size_t i = 0; i < records.size() && kept < each; ++i, ++kept) timed_records_.push_back(records[i]);
}

// A model that cannot be timed is left out, aloud: what it predicts is not at stake.
absl::Status Evaluator::MeasureLatencies() {
  if (job_.latency().empty()) return absl::OkStatus();
  const SecondsClock clock = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  std::map<std::string, evaluation::Latencies> models;
  for (const v1::EvaluatedModel& model : job_.timed()) {
    const auto judged = LoadJudged(model, job_, at::kCPU);
    absl::Status status = judged.status();
    if (judged.ok()) {
      const auto latencies = MeasureLatency(*judged->package.model, job_.task(), judged->tokenizer.get(), judged->reads,
                                            timed_records_, clock, context_.stop);
      if (latencies.ok()) models[model.name()] = *latencies;
      status = latencies.status();
    }
    if (absl::IsCancelled(status)) return status;
    if (!status.ok()) spdlog::warn("no latency of the {}: {}", model.name(), std::string(status.message()));
  }
  return evaluation::WriteLatencies(models, job_.latency());
}

absl::StatusOr<v1::WorkerMessage::Done> Evaluator::Run() {
  for (int language = 0; language < index_->languages_size(); ++language) {
    for (int block = 0; block < index_->languages(language).blocks_size(); ++block) {
      ASSIGN_OR_RETURN(auto records, reader_->ReadBlock(language, block));
      KeepForTiming(language, records);
      RETURN_IF_ERROR(JudgeBlock(std::move(records)));
    }
  }
  RETURN_IF_ERROR(writer_->Finish());
  if (cut_ > 0) spdlog::info("{} words lie beyond max_length of some model and are not judged", cut_);
  RETURN_IF_ERROR(MeasureLatencies());
  v1::WorkerMessage::Done done;
  *done.mutable_progress() = progress_;
  return done;
}

}  // namespace

absl::StatusOr<v1::WorkerMessage::Done> Evaluate(const v1::WorkerOrder::Assignment& assignment,
                                                 const WorkerContext& context) {
  Evaluator evaluator(assignment, context);
  RETURN_IF_ERROR(evaluator.Prepare());
  return evaluator.Run();
}

}  // namespace polystill::student_worker
