#include "student_worker/data_loader.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "models/outputs.h"
#include "runtime/status.h"
#include "soft_labels/look_ahead.h"
#include "soft_labels/record_input.h"

namespace polystill::student_worker {
namespace {

using Clock = std::chrono::steady_clock;

// How often whoever waits for a batch says so.
constexpr std::chrono::seconds kSayEvery(1);

bool IsLogits(const soft_labels::Output& output) { return output.name == soft_labels::kLogits; }

// What the rows of an output belong to.
RowsOf RowsOfOutput(const soft_labels::Output& output) {
  if (IsLogits(output)) return RowsOf::kJudged;
  return output.of_tokens ? RowsOf::kTokens : RowsOf::kRecords;
}

bool HasLogitsAlone(const DataLoader::LabelSource& source) {
  return std::all_of(source.outputs.begin(), source.outputs.end(), IsLogits);
}

// Numbers of a row of an output as its codec holds it; 0: it has none.
int64_t WidthOf(const v1::LabelSpec& spec, const soft_labels::Output& output) {
  switch (spec.codec()) {
    case v1::CODEC_HIDDEN_HEAD:
      return output.head_width;
    case v1::CODEC_TOP_K:
      return spec.k() + 1;
    case v1::CODEC_SAMPLED:
      return 1;
    case v1::CODEC_CLASSES:
      return 0;
    default:
      return output.width;
  }
}

// Whether an array is of `rows` rows of that codec.
bool HasRows(const soft_labels::Array& array, const v1::LabelSpec& spec, int64_t rows, int64_t width) {
  if (array.width != width || static_cast<int64_t>(array.numbers.size()) != rows * width) return false;
  const auto ids = static_cast<int64_t>(array.ids.size());
  switch (spec.codec()) {
    case v1::CODEC_TOP_K:
      return ids == rows * spec.k();
    case v1::CODEC_SAMPLED:
      return static_cast<int64_t>(array.offsets.size()) == rows + 1 && array.offsets.back() == ids &&
             array.counts.size() == array.ids.size();
    case v1::CODEC_CLASSES:
      return ids == rows;
    default:
      return ids == 0;
  }
}

// Answers must fit the batch row by row, else labels would go to others than they belong to.
absl::Status CheckShapes(const soft_labels::LabelClient::Labels& answer, const DataLoader::LabelSource& source,
                         const Batch& batch) {
  const soft_labels::Outputs& outputs = source.outputs;
  if (answer.outputs.size() != outputs.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected ", outputs.size(), " outputs, got ", answer.outputs.size()));
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    const soft_labels::Array& array = answer.outputs[i];
    const int64_t rows = batch.CountRows(RowsOfOutput(outputs[i])), width = WidthOf(source.spec, outputs[i]);
    if (HasRows(array, source.spec, rows, width)) continue;
    return absl::InvalidArgumentError(absl::StrCat("expected ", outputs[i].name, " [", rows, ", ", width, "], got ",
                                                   array.numbers.size(), " numbers in rows of ", array.width, ", and ",
                                                   array.ids.size(), " ids"));
  }
  return absl::OkStatus();
}

int64_t BytesOf(const soft_labels::Array& array) {
  return static_cast<int64_t>(array.numbers.size() * sizeof(float) + array.offsets.size() * sizeof(int64_t) +
                              (array.ids.size() + array.counts.size()) * sizeof(int32_t));
}

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Labels of no rows.
Labels NoLabels(const v1::LabelSpec& spec, const soft_labels::Output& output) {
  Labels labels{RowsOfOutput(output), WidthOf(spec, output), {}};
  if (spec.codec() == v1::CODEC_SAMPLED) labels.offsets = {0};
  return labels;
}

}  // namespace

struct DataLoader::Shared {
  explicit Shared(int prefetch) : look_ahead(prefetch) {}

  Mutex mutex;
  CondVar changed;
  std::deque<std::shared_ptr<Pending>> queue ABSL_GUARDED_BY(mutex);
  bool closing ABSL_GUARDED_BY(mutex) = false;
  soft_labels::LookAhead look_ahead ABSL_GUARDED_BY(mutex);

  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return queue.size() >= static_cast<size_t>(look_ahead.steps());
  }

  // A place in the queue, once there is one; false when the loader closes.
  bool Push(std::shared_ptr<Pending> pending) {
    MutexLock lock(&mutex);
    while (!closing && IsFull()) changed.Wait(&mutex);
    if (closing) return false;
    pending->asked_at = Clock::now();
    queue.push_back(std::move(pending));
    changed.NotifyAll();
    return true;
  }

  // Whether the next batch is whole, or failed.
  bool FirstArrived() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return !queue.empty() && (!queue.front()->status.ok() || queue.front()->missing_labels == 0);
  }

  // Nothing more is to come of one source.
  void NoteLabels(Pending* pending) {
    MutexLock lock(&mutex);
    Came(pending);
  }

  void Came(Pending* pending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    if (--pending->missing_labels == 0) look_ahead.NoteLabels(SecondsSince(pending->asked_at), pending->label_bytes);
    changed.NotifyAll();
  }

  void Fail(Pending* pending, absl::Status status) {
    MutexLock lock(&mutex);
    if (pending->status.ok()) pending->status = std::move(status);
    changed.NotifyAll();
  }
};

DataLoader::DataLoader(Options options, std::shared_ptr<const corpus::Plan> plan,
                       std::unique_ptr<corpus::Reader> reader, std::shared_ptr<const corpus::Tokenizer> tokenizer)
    : options_(std::move(options)),
      plan_(std::move(plan)),
      reader_(std::move(reader)),
      tokenizer_(std::move(tokenizer)),
      memo_(options_.memo_bytes),
      shared_(std::make_shared<Shared>(options_.prefetch)),
      thread_([this] { Run(); }) {}

DataLoader::~DataLoader() {
  {
    MutexLock lock(&shared_->mutex);
    shared_->closing = true;
    shared_->changed.NotifyAll();
  }
  thread_.join();
}

void DataLoader::Run() {
  for (int64_t step = options_.first_step; step < options_.steps; ++step) {
    auto pending = std::make_shared<Pending>();
    Slice slice;
    pending->status = Annotate(Fill(step, &slice, &pending->batch), absl::StrCat("step ", step));
    const bool filled = pending->status.ok();
    if (filled && !slice.records.empty()) pending->missing_labels = options_.labels.size();
    if (!shared_->Push(pending) || !filled) return;
    if (slice.records.empty()) continue;
    for (const LabelSource& source : options_.labels) Ask(source, slice, pending);
  }
}

Tokens DataLoader::TokensOf(const corpus::RecordRef& ref, const corpus::Record& record) {
  if (const Tokens* known = memo_.Find(ref)) return *known;
  Tokens tokens = student_worker::TokensOf(record, options_.reads, tokenizer_.get());
  memo_.Put(ref, tokens);
  return tokens;
}

absl::Status DataLoader::Fill(int64_t step, Slice* slice, Batch* batch) {
  const auto range = corpus::Plan::SliceOf(plan_->segment().batch_size(), options_.rank, options_.world_size);
  slice->refs = plan_->Slice(step, range.first, range.last);
  ASSIGN_OR_RETURN(slice->records, reader_->Read(slice->refs));
  batch->step = step;
  batch->first_position = range.first;
  batch->judges_tokens = models::JudgesTokens(options_.task);
  for (const LabelSource& source : options_.labels) {
    for (const soft_labels::Output& output : source.outputs) {
      batch->labels[source.KindOf(output)] = NoLabels(source.spec, output);
    }
  }
  for (size_t i = 0; i < slice->refs.size(); ++i) {
    RETURN_IF_ERROR(FillRecord(slice->refs[i], slice->records[i], batch));
  }
  return absl::OkStatus();
}

absl::Status DataLoader::FillRecord(const corpus::RecordRef& ref, const corpus::Record& record, Batch* batch) {
  Tokens tokens = TokensOf(ref, record);
  if (options_.needs_gold && record.label < 0 && record.labels.empty() && !options_.masker.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("record '", record.id,
                                                   "' has no label, but the task loss needs "
                                                   "one; leave such records out with `where`, or the loss"));
  }
  if (options_.task == v1::TASK_TOKEN_CLASSIFICATION) {
    RETURN_IF_ERROR(FillWords(record, tokens, batch));
  } else if (options_.masker.has_value()) {
    FillHidden(&tokens.ids, batch);
  } else {
    const std::vector<int64_t> gold = GoldOf(options_.task, record);
    batch->gold.insert(batch->gold.end(), gold.begin(), gold.end());
  }
  batch->tokens.push_back(std::move(tokens.ids));
  batch->ids.push_back(record.id);
  batch->passes.push_back(ref.pass);
  ++batch->languages[record.language];
  return absl::OkStatus();
}

absl::Status DataLoader::FillWords(const corpus::Record& record, const Tokens& tokens, Batch* batch) {
  JudgedTokens judged = JudgedTokensOf(record, tokens);
  cut_words_ += judged.cut;
  batch->gold.insert(batch->gold.end(), judged.gold.begin(), judged.gold.end());
  for (const LabelSource& source : options_.labels) {
    // A teacher reads no positions as every token.
    if (!judged.positions.empty() || HasLogitsAlone(source)) continue;
    return absl::InvalidArgumentError(absl::StrCat("record '", record.id,
                                                   "' has no word that is judged, but tokens that losses of features "
                                                   "need; leave such records out with `where`, or those losses"));
  }
  batch->positions.push_back(std::move(judged.positions));
  return absl::OkStatus();
}

void DataLoader::FillHidden(std::vector<int32_t>* ids, Batch* batch) {
  const int64_t position = batch->first_position + static_cast<int64_t>(batch->ids.size());
  JudgedTokens hidden = options_.masker->HideInStep(batch->step, position, ids);
  batch->gold.insert(batch->gold.end(), hidden.gold.begin(), hidden.gold.end());
  batch->positions.push_back(std::move(hidden.positions));
}

DataLoader::Question DataLoader::QuestionFor(const LabelSource& source, const Slice& slice, const Batch& batch) const {
  const bool at_positions =
      !batch.positions.empty() && std::any_of(source.outputs.begin(), source.outputs.end(), IsLogits);
  Question question;
  for (size_t i = 0; i < slice.records.size(); ++i) {
    if (at_positions && batch.positions[i].empty()) continue;  // nothing of it is judged
    v1::LabelInput& input = question.inputs.emplace_back();
    if (source.sends_tokens) {
      input.set_id(slice.records[i].id);
      input.mutable_ids()->mutable_ids()->Add(batch.tokens[i].begin(), batch.tokens[i].end());
    } else {
      input = soft_labels::LabelInputOf(slice.records[i], source.reads, source.input);
    }
    if (source.draws_anew) input.set_draw(static_cast<uint64_t>(batch.passes[i]));
    if (at_positions) input.mutable_positions()->Add(batch.positions[i].begin(), batch.positions[i].end());
    question.refs.push_back(slice.refs[i]);
  }
  return question;
}

void DataLoader::Ask(const LabelSource& source, const Slice& slice, std::shared_ptr<Pending> pending) {
  // The batch stays where it is until its last label has come.
  Question question = QuestionFor(source, slice, pending->batch);
  if (question.inputs.empty()) return shared_->NoteLabels(pending.get());
  auto fill = [shared = shared_, pending, source = source,
               count = question.inputs.size()](absl::StatusOr<soft_labels::LabelClient::Labels> answer) {
    absl::Status status = answer.ok() ? CheckShapes(*answer, source, pending->batch) : answer.status();
    if (!status.ok()) {
      const std::string where = absl::StrCat("step ", pending->batch.step, ": labels of teacher ", source.teacher);
      return shared->Fail(pending.get(), Annotate(status, where));
    }
    MutexLock lock(&shared->mutex);
    for (size_t i = 0; i < source.outputs.size(); ++i) {
      pending->label_bytes += BytesOf(answer->outputs[i]);
      Labels& labels = pending->batch.labels[source.KindOf(source.outputs[i])];
      labels.numbers = std::move(answer->outputs[i].numbers);
      labels.ids = std::move(answer->outputs[i].ids);
      labels.counts = std::move(answer->outputs[i].counts);
      if (source.spec.codec() == v1::CODEC_SAMPLED) labels.offsets = std::move(answer->outputs[i].offsets);
    }
    pending->batch.label_count += static_cast<int64_t>(count);
    pending->batch.label_bytes += answer->bytes;
    shared->Came(pending.get());
  };
  if (source.read) return fill(source.read(question.refs, question.inputs));
  source.ask(source.spec, std::move(question.inputs), std::move(fill));
}

double DataLoader::ReadsPerBlock() const {
  double records = 0, blocks = 0;
  for (const v1::CorpusIndex::Language& language : plan_->index().languages()) {
    records += static_cast<double>(language.records());
    blocks += static_cast<double>(language.blocks_size());
  }
  const double drawn = static_cast<double>(options_.steps - options_.first_step) * plan_->segment().batch_size();
  return static_cast<double>(reader_->blocks_decoded()) / (blocks * std::max(1.0, std::ceil(drawn / records)));
}

int DataLoader::prefetch() const {
  MutexLock lock(&shared_->mutex);
  return shared_->look_ahead.steps();
}

// Until the next batch is whole, or this is not to be waited for any more.
void DataLoader::AwaitFirst(const std::stop_token& stop) {
  const auto wake = [this] {
    MutexLock lock(&shared_->mutex);
    shared_->changed.NotifyAll();
  };
  const std::stop_callback at_stop(stop, wake), at_leave(options_.leave, wake);
  Clock::time_point until = Clock::now() + kSayEvery;
  while (true) {
    {
      MutexLock lock(&shared_->mutex);
      const auto may_wait = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return !shared_->FirstArrived() && !options_.leave.stop_requested() && Clock::now() < until;
      };
      while (may_wait() && !stop.stop_requested()) shared_->changed.WaitFor(&shared_->mutex, until - Clock::now());
      if (stop.stop_requested()) {
        until = Clock::now() + options_.stop_patience;
        while (may_wait()) shared_->changed.WaitFor(&shared_->mutex, until - Clock::now());
      }
      if (shared_->FirstArrived() || options_.leave.stop_requested() || stop.stop_requested()) return;
    }
    if (options_.while_waiting) options_.while_waiting();
    until = Clock::now() + kSayEvery;
  }
}

absl::StatusOr<Batch> DataLoader::Next(std::stop_token stop) {
  const Clock::time_point start = Clock::now();
  if (left_at_.has_value()) {
    MutexLock lock(&shared_->mutex);
    shared_->look_ahead.NoteStep(std::chrono::duration<double>(start - *left_at_).count());
  }
  AwaitFirst(stop);
  left_at_ = Clock::now();
  wait_seconds_ += std::chrono::duration<double>(*left_at_ - start).count();
  MutexLock lock(&shared_->mutex);
  if (options_.leave.stop_requested()) return absl::AbortedError("left while waiting for data");
  if (!shared_->FirstArrived()) return absl::CancelledError("stopped while waiting for data");
  const std::shared_ptr<Pending> pending = shared_->queue.front();
  if (!pending->status.ok()) return pending->status;
  shared_->queue.pop_front();
  shared_->changed.NotifyAll();
  return std::move(pending->batch);
}

}  // namespace polystill::student_worker
