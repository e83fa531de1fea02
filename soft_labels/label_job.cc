#include "soft_labels/label_job.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "corpus/reader.h"
#include "models/outputs.h"
#include "runtime/files.h"
#include "runtime/mutex.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/client.h"
#include "soft_labels/decode.h"
#include "soft_labels/head.h"
#include "soft_labels/record_input.h"
#include "soft_labels/store_folder.h"
#include "soft_labels/store_manifest.h"
#include "soft_labels/store_parts.h"
#include "soft_labels/store_writer.h"

namespace polystill::soft_labels {
namespace {

// Records of one call, and bytes of its labels, at most; but one record.
constexpr int64_t kCallRecords = 256;
constexpr int64_t kCallBytes = int64_t{16} << 20;
// As Teacher.parity_tolerance is unless a run file says otherwise.
constexpr double kParityTolerance = 1e-3;
// Of all calls under way, and of those whose answers wait for their turn to be written.
constexpr int64_t kMostBytesInFlight = int64_t{128} << 20;
// So often a waiting job looks whether it is to stop.
constexpr std::chrono::milliseconds kLook{100};

// Records that are asked for in one go, and what came.
struct Asked {
  std::vector<LabelledRecord> records;
  int64_t bytes = 0;
  // Of the part that these are the last records of; none for others.
  std::optional<int64_t> ends_part = std::nullopt;

  // Outlives the job in the client's callback.
  struct Answer {
    Mutex mutex;
    CondVar came;
    std::optional<absl::StatusOr<LabelClient::Labels>> labels ABSL_GUARDED_BY(mutex);
  };
  std::shared_ptr<Answer> answer = std::make_shared<Answer>();
};

// What is of the teacher, and not of the server that asks it.
v1::DescribeReply PlacelessDescription(v1::DescribeReply description) {
  description.clear_protocol_version();
  description.clear_stream_credits();
  description.clear_max_records_per_request();
  description.clear_caches();
  return description;
}

class LabelJob {
 public:
  LabelJob(const LabelJobOptions& options, const std::atomic<bool>& stop,
           const std::function<void(const LabelProgress&)>& progress)
      : options_(options), stop_(stop), progress_(progress) {}

  absl::Status Run() {
    RETURN_IF_ERROR(Connect());
    RETURN_IF_ERROR(ReadCorpus());
    ASSIGN_OR_RETURN(folder_, StoreFolder::Open(options_.out, manifest_));
    counts_.total = plan_->records();
    if (folder_->sealed()) {
      counts_.done = counts_.total;
      progress_(counts_);
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(LabelAll());
    RETURN_IF_ERROR(FetchHeadIfNeeded());
    return folder_->Seal(manifest_);
  }

 private:
  absl::Status Connect();
  absl::Status CheckTeacher() const;
  absl::Status ReadCorpus();
  absl::Status LabelAll();
  size_t CallRecords() const;
  absl::Status LabelPart(int64_t i, const PlannedPart& part);
  absl::Status Ask(const PlannedPart& part, size_t first, size_t last, std::optional<int64_t> ends_part);
  // Writes what has come, in order; waits while more than `bytes` and `records` are under way.
  absl::Status Write(int64_t records, int64_t bytes);
  absl::Status TakeAnswer(Asked asked, LabelClient::Labels labels);
  absl::Status FinishPart(int64_t i);
  absl::Status FetchHeadIfNeeded();
  absl::Status CheckStop() const { return stop_ ? absl::CancelledError("interrupted") : absl::OkStatus(); }

  const LabelJobOptions& options_;
  const std::atomic<bool>& stop_;
  const std::function<void(const LabelProgress&)>& progress_;

  Outputs outputs_;
  v1::LabelStoreManifest manifest_;
  std::shared_ptr<const v1::CorpusIndex> index_;
  std::optional<PartPlan> plan_;
  std::unique_ptr<corpus::Reader> reader_;
  std::unique_ptr<StoreFolder> folder_;
  std::unique_ptr<PartWriter> writer_;
  LabelProgress counts_;
  std::deque<Asked> asked_;
  int64_t asked_records_ = 0;
  int64_t asked_bytes_ = 0;
  std::unique_ptr<LabelClient> client_;  // last: it goes first, and with it its callbacks
};

absl::Status LabelJob::Connect() {
  LabelClient::Options options;
  options.tenant = "label";
  options.client = absl::StrCat("label/", options_.out);
  options.keeps_encoded = true;
  options.parity_tolerance = kParityTolerance;
  ASSIGN_OR_RETURN(client_, LabelClient::Connect(options_.teachers, options));
  const v1::DescribeReply& teacher = client_->description();
  *manifest_.mutable_teacher() = PlacelessDescription(teacher);
  *manifest_.mutable_spec() = options_.spec;
  if (manifest_.spec().outputs().empty()) manifest_.mutable_spec()->add_outputs(kLogits);
  manifest_.mutable_spec()->set_teacher_digest(teacher.digest());
  manifest_.set_reads(options_.reads);
  manifest_.set_part_records(options_.part_records);
  RETURN_IF_ERROR(CheckTeacher());
  ASSIGN_OR_RETURN(outputs_, OutputsOf(manifest_.spec(), teacher));
  return CheckSpec(manifest_.spec(), outputs_, teacher.signature().task());
}

absl::Status LabelJob::CheckTeacher() const {
  const v1::DescribeReply& teacher = client_->description();
  const std::string who = absl::StrCat("teacher '", teacher.name(), "'");
  if (manifest_.spec().codec() == v1::CODEC_SCORES) {
    return absl::InvalidArgumentError("codec scores is of ids that a caller names; a store has none to name");
  }
  if (models::JudgesTokens(teacher.signature().task())) {
    return absl::InvalidArgumentError(
        absl::StrCat(who, " judges tokens; a store holds labels of records: ask for --outputs of a teacher of texts"));
  }
  for (const std::string& output : manifest_.spec().outputs()) {
    if (!models::IsOfTokens(output)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("output '", output, "' has a row for each token; a store holds rows of records"));
  }
  return absl::OkStatus();
}

absl::Status LabelJob::ReadCorpus() {
  RETURN_IF_ERROR(CheckStop());
  const v1::Signature& signature = client_->description().signature();
  v1::Selection selection = options_.selection;
  selection.set_task(signature.task());
  if (signature.input() == v1::Signature::INPUT_IDS) {
    selection.mutable_tokenizer()->set_kind(v1::Tokenizer::KIND_IDS);
    selection.mutable_tokenizer()->set_vocab_size(signature.vocab_size());
    selection.mutable_tokenizer()->set_max_length(signature.max_length());
  }
  const bool source = options_.reads == v1::SIDE_SOURCE_TEXT;
  selection.set_reads_source_text(source);
  selection.set_reads_text(!source);
  ASSIGN_OR_RETURN(v1::CorpusIndex index, corpus::BuildIndex(selection));
  *manifest_.mutable_selection() = selection;
  *manifest_.mutable_corpus_files() = index.files();
  manifest_.set_corpus_digest(corpus::IndexDigest(index));
  index_ = std::make_shared<const v1::CorpusIndex>(std::move(index));
  plan_.emplace(*index_, options_.part_records);
  manifest_.set_records(plan_->records());
  ASSIGN_OR_RETURN(reader_, corpus::Reader::Open(index_));
  return CheckStop();
}

absl::Status LabelJob::LabelAll() {
  for (int64_t i = 0; i < plan_->size(); ++i) {
    const PlannedPart part = plan_->Part(i);
    v1::LabelStoreManifest::Part& entry = *manifest_.add_parts();
    *entry.mutable_unit() = part.unit;
    entry.mutable_languages()->insert(part.languages.begin(), part.languages.end());
    *entry.mutable_file() = folder_->FinishedPart(part.name);
    if (entry.file().name().empty()) {
      entry.mutable_file()->set_name(part.name);
      RETURN_IF_ERROR(LabelPart(i, part));
    } else {
      counts_.done += part.unit.records();
      progress_(counts_);
    }
  }
  return Write(0, 0);
}

size_t LabelJob::CallRecords() const {
  const int64_t each = std::max<int64_t>(BytesOf(manifest_.spec(), outputs_, v1::LabelInput()), 1);
  return static_cast<size_t>(std::clamp<int64_t>(kCallBytes / each, 1, kCallRecords));
}

absl::Status LabelJob::LabelPart(int64_t i, const PlannedPart& part) {
  for (size_t first = 0; first < part.records.size();) {
    const size_t last = std::min(part.records.size(), first + CallRecords());
    RETURN_IF_ERROR(Ask(part, first, last, last == part.records.size() ? std::optional(i) : std::nullopt));
    first = last;
    RETURN_IF_ERROR(Write(client_->description().stream_credits() * client_->replica_count(), kMostBytesInFlight));
  }
  return absl::OkStatus();
}

absl::Status LabelJob::Ask(const PlannedPart& part, size_t first, size_t last, std::optional<int64_t> ends_part) {
  const auto begin = part.records.begin();
  ASSIGN_OR_RETURN(
      const std::vector<corpus::Record> records,
      reader_->Read({begin + static_cast<std::ptrdiff_t>(first), begin + static_cast<std::ptrdiff_t>(last)}));
  Asked asked;
  std::vector<v1::LabelInput> inputs;
  for (const corpus::Record& record : records) {
    inputs.push_back(LabelInputOf(record, options_.reads, client_->description().signature().input()));
    asked.bytes +=
        BytesOf(manifest_.spec(), outputs_, inputs.back()) + static_cast<int64_t>(inputs.back().ByteSizeLong());
    asked.records.push_back({record.id, record.language, {}});
  }
  asked.ends_part = ends_part;
  asked_records_ += static_cast<int64_t>(asked.records.size());
  asked_bytes_ += asked.bytes;
  client_->Label(manifest_.spec(), std::move(inputs),
                 [answer = asked.answer](absl::StatusOr<LabelClient::Labels> labels) {
                   MutexLock lock(&answer->mutex);
                   answer->labels = std::move(labels);
                   answer->came.NotifyAll();
                 });
  asked_.push_back(std::move(asked));
  return absl::OkStatus();
}

absl::Status LabelJob::Write(int64_t records, int64_t bytes) {
  while (!asked_.empty()) {
    Asked& first = asked_.front();
    const bool waits = asked_records_ > records || asked_bytes_ > bytes;
    std::optional<absl::StatusOr<LabelClient::Labels>> labels;
    while (true) {
      RETURN_IF_ERROR(CheckStop());
      MutexLock lock(&first.answer->mutex);
      if (!first.answer->labels.has_value() && waits) first.answer->came.WaitFor(&first.answer->mutex, kLook);
      labels.swap(first.answer->labels);
      if (labels.has_value() || !waits) break;
    }
    if (!labels.has_value()) return absl::OkStatus();
    RETURN_IF_ERROR(labels->status());
    Asked asked = std::move(first);
    asked_.pop_front();
    asked_records_ -= static_cast<int64_t>(asked.records.size());
    asked_bytes_ -= asked.bytes;
    RETURN_IF_ERROR(TakeAnswer(std::move(asked), *std::move(*labels)));
  }
  return absl::OkStatus();
}

absl::Status LabelJob::TakeAnswer(Asked asked, LabelClient::Labels labels) {
  if (writer_ == nullptr) {
    // The part of the oldest records under way: the first that has no digest.
    const auto part = std::find_if(manifest_.parts().begin(), manifest_.parts().end(),
                                   [](const auto& part) { return part.file().sha256().empty(); });
    ASSIGN_OR_RETURN(writer_, PartWriter::Create(folder_->PathOfPart(part->file().name()), manifest_.spec(), outputs_));
  }
  for (size_t i = 0; i < asked.records.size(); ++i) {
    asked.records[i].labels = std::move(labels.encoded.at(i));
    counts_.bytes += asked.records[i].bytes();
    RETURN_IF_ERROR(writer_->Append(std::move(asked.records[i])));
  }
  counts_.done += static_cast<int64_t>(asked.records.size());
  counts_.labelled += static_cast<int64_t>(asked.records.size());
  progress_(counts_);
  return asked.ends_part.has_value() ? FinishPart(*asked.ends_part) : absl::OkStatus();
}

absl::Status LabelJob::FinishPart(int64_t i) {
  ASSIGN_OR_RETURN(const v1::FileDigest digest, writer_->Finish());
  writer_.reset();
  *manifest_.mutable_parts(static_cast<int>(i))->mutable_file() = digest;
  return folder_->NoteFinished(digest);
}

absl::Status LabelJob::FetchHeadIfNeeded() {
  if (manifest_.spec().codec() != v1::CODEC_HIDDEN_HEAD) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string head, FetchHead(options_.teachers, client_->description().head()));
  manifest_.mutable_head()->set_name(kStoreHeadFile);
  manifest_.mutable_head()->set_bytes(static_cast<int64_t>(head.size()));
  manifest_.mutable_head()->set_sha256(Sha256Hex(head));
  return WriteFileAtomically(absl::StrCat(options_.out, "/", kStoreHeadFile), head);
}

}  // namespace

absl::Status RunLabelJob(const LabelJobOptions& options, const std::atomic<bool>& stop,
                         const std::function<void(const LabelProgress&)>& progress) {
  return LabelJob(options, stop, progress).Run();
}

}  // namespace polystill::soft_labels
