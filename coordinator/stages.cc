#include "coordinator/stages.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "corpus/index.h"
#include "corpus/mixture.h"
#include "corpus/plan.h"
#include "corpus/tokenizer.h"
#include "runtime/deterministic_bytes.h"
#include "runtime/files.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "runtime/tokenizer_file.h"
#include "soft_labels/store_manifest.h"

namespace polystill::coordinator {
namespace {

// As StageNames calls them.
constexpr char kIndexStage[] = "index";
constexpr char kTokenizerStage[] = "tokenizer";
constexpr char kStudentJob[] = "distilled";
constexpr int64_t kMaxTokenizerBytes = int64_t{1} << 28;

using Index = std::shared_ptr<const v1::CorpusIndex>;

int64_t RecordsOf(const v1::CorpusIndex& index) {
  int64_t records = 0;
  for (const auto& language : index.languages()) records += language.records();
  return records;
}

// Indexes selections, each once, and tells how far it is.
class Indexer {
 public:
  explicit Indexer(const std::function<void(StageProgress)>& progress) : report_(progress) {
    progress_.stage = kIndexStage;
    report_(progress_);
  }

  // `job`: whose records these are, for messages.
  absl::StatusOr<Index> IndexOf(const std::string& job, const v1::Selection& selection) {
    Index& index = by_selection_[DeterministicBytes(selection)];
    if (index != nullptr) return index;
    absl::StatusOr<v1::CorpusIndex> built = corpus::BuildIndex(selection);
    if (!built.ok()) return Annotate(built.status(), job);
    index = std::make_shared<const v1::CorpusIndex>(*std::move(built));
    if (told_.insert(WhichRecords(selection)).second) Tell(*index);
    return index;
  }

 private:
  // Two selections of the same records that read different columns of them have the same.
  static std::string WhichRecords(v1::Selection selection) {
    selection.clear_reads_text();
    selection.clear_reads_source_text();
    selection.clear_reads_labels();
    return DeterministicBytes(selection);
  }

  void Tell(const v1::CorpusIndex& index) {
    for (const auto& language : index.languages()) progress_.records_by_language[language.name()] += language.records();
    progress_.records += RecordsOf(index);
    progress_.done = progress_.records;
    report_(progress_);
  }

  const std::function<void(StageProgress)>& report_;
  StageProgress progress_;
  std::map<std::string, Index> by_selection_;
  // WhichRecords of the selections that were counted.
  std::set<std::string> told_;
};

absl::Status PlanTraining(const Index& index, double epochs, v1::Job* job) {
  v1::PlanSegment& segment = *job->mutable_plan();
  segment.set_index_digest(corpus::IndexDigest(*index));
  const double wanted = std::ceil(epochs * static_cast<double>(RecordsOf(*index)));
  const int64_t most = corpus::MostRecords(segment.mixture(), *index);
  segment.set_budget(static_cast<int64_t>(std::min(wanted, static_cast<double>(most))));
  if (wanted > static_cast<double>(most)) {
    spdlog::warn(
        "{}: shortened from {:.0f} records to {}, which are all that max_epochs: {} passes over each language "
        "give; raise student.languages.mixture.max_epochs, or lower student.epochs",
        job->name(), wanted, most, segment.mixture().max_epochs());
  }
  ASSIGN_OR_RETURN(const corpus::Plan plan, corpus::Plan::Create(segment, index));
  ASSIGN_OR_RETURN(const int64_t steps, plan.StepsForEpochs(epochs));
  job->set_steps(steps);
  return absl::OkStatus();
}

// The languages of the student's index, for an evaluation that names none.
void FillLanguages(const v1::CorpusIndex& student, v1::Selection* selection) {
  if (selection->languages_size() > 0) return;
  for (const auto& language : student.languages()) selection->add_languages(language.name());
}

// That the label stores of a job's teachers hold its records.
absl::Status CheckStores(const v1::RunSpec& spec, const PlannedJob& planned, const v1::CorpusIndex& index) {
  for (int i = 0; i < spec.teachers_size(); ++i) {
    const v1::Teacher& teacher = spec.teachers(i);
    const auto& asked = planned.teachers;
    if (teacher.store().empty() || std::find(asked.begin(), asked.end(), teacher.name()) == asked.end()) continue;
    const std::string where = absl::StrCat(planned.job.name(), ": teachers.", i, ".store: ", teacher.store());
    ASSIGN_OR_RETURN(const v1::LabelStoreManifest store, soft_labels::ReadStore(teacher.store()));
    RETURN_IF_ERROR(Annotate(soft_labels::CheckHolds(store, index), where));
  }
  return absl::OkStatus();
}

absl::Status PrepareJob(Indexer* indexer, const Index& student, PlannedJob* planned, Stages* stages) {
  const bool training = planned->job.kind() == v1::Job::KIND_TRAIN;
  if (!training) FillLanguages(*student, &planned->selection);
  ASSIGN_OR_RETURN(const Index index, indexer->IndexOf(planned->job.name(), planned->selection));
  stages->indexes[corpus::IndexDigest(*index)] = index;
  if (training) {
    RETURN_IF_ERROR(Annotate(PlanTraining(index, planned->epochs, &planned->job), planned->job.name()));
    if (planned->job.has_early_stopping()) {
      ASSIGN_OR_RETURN(const Index held_out, indexer->IndexOf(planned->job.name(), HeldOutSelection(*planned)));
      planned->job.set_validation_index_digest(corpus::IndexDigest(*held_out));
      stages->indexes[corpus::IndexDigest(*held_out)] = held_out;
    }
    stages->prepared.totals[planned->job.name()] = planned->job.steps();
    return absl::OkStatus();
  }
  *planned->job.mutable_selection() = planned->selection;
  planned->job.mutable_plan()->set_index_digest(corpus::IndexDigest(*index));
  stages->prepared.totals[planned->job.name()] = RecordsOf(*index);
  return absl::OkStatus();
}

absl::Status MakeTokenizer(const v1::RunSpec& spec, const std::function<void(StageProgress)>& progress) {
  if (!TrainsTokenizer(spec)) {
    if (spec.tokenizer().kind() != v1::Tokenizer::KIND_SENTENCEPIECE) return absl::OkStatus();
    // A copy in the run's folder, so that the run stays whole if the original goes.
    RETURN_IF_ERROR(Annotate(corpus::Tokenizer::Load(spec.tokenizer().path(), spec.tokenizer().max_length()).status(),
                             "tokenizer"));
    ASSIGN_OR_RETURN(const std::string model, ReadFile(spec.tokenizer().path(), kMaxTokenizerBytes));
    return WriteFileAtomically(absl::StrCat(TokenizerFolder(spec), "/", TokenizerFileName(model)), model);
  }
  progress({kTokenizerStage, 0, 0, 0, {}});
  return corpus::TrainTokenizer(spec.tokenizer(), TokenizerSelections(spec), spec.seed(),
                                spec.task() == v1::TASK_MASKED_LM, TokenizerFolder(spec),
                                [&progress](int64_t done, int64_t total) {
                                  progress({kTokenizerStage, done, total, 0, {}});
                                });
}

// So that the folder holds no second one of another kind.
absl::Status RemoveTokenizers(const v1::RunSpec& spec) {
  for (const char* name : {kSentencePieceFile, kTokenizerJsonFile}) {
    const std::string path = absl::StrCat(TokenizerFolder(spec), "/", name);
    std::error_code error;
    std::filesystem::remove(path, error);
    if (error) return FileError(error.value(), path, "remove");
  }
  return absl::OkStatus();
}

absl::Status CheckStop(const std::atomic<bool>& stop) {
  return stop ? absl::CancelledError("the run was stopped") : absl::OkStatus();
}

}  // namespace

std::string IndexBytes(const v1::CorpusIndex& index) { return DeterministicBytes(index); }

absl::StatusOr<Stages> IndexJobs(const v1::RunSpec& spec, const std::function<void(StageProgress)>& progress,
                                 const std::atomic<bool>& stop) {
  Stages stages;
  stages.prepared.jobs = PlanJobs(spec);
  Indexer indexer(progress);
  Index student;
  for (const PlannedJob& planned : stages.prepared.jobs) {
    if (planned.job.name() != kStudentJob) continue;
    ASSIGN_OR_RETURN(student, indexer.IndexOf(planned.job.name(), planned.selection));
  }
  for (PlannedJob& planned : stages.prepared.jobs) {
    RETURN_IF_ERROR(CheckStop(stop));
    RETURN_IF_ERROR(PrepareJob(&indexer, student, &planned, &stages));
    RETURN_IF_ERROR(CheckStores(spec, planned, *stages.indexes.at(planned.job.plan().index_digest())));
  }
  return stages;
}

absl::StatusOr<Stages> RunStages(const v1::RunSpec& spec, const std::function<void(StageProgress)>& progress,
                                 const std::atomic<bool>& stop, const std::string& tokenizer_digest) {
  ASSIGN_OR_RETURN(Stages stages, IndexJobs(spec, progress, stop));
  RETURN_IF_ERROR(CheckStop(stop));
  ASSIGN_OR_RETURN(stages.prepared.inputs, WithDigests(InputsOf(spec)));
  RETURN_IF_ERROR(CheckStop(stop));
  if (TokenizerFolder(spec).empty()) return stages;
  const std::string there = FindTokenizerFile(TokenizerFolder(spec)).value_or("");
  if (tokenizer_digest.empty() || Sha256File(there).value_or("") != tokenizer_digest) {
    RETURN_IF_ERROR(RemoveTokenizers(spec));
    RETURN_IF_ERROR(MakeTokenizer(spec, progress));
  }
  ASSIGN_OR_RETURN(const std::string file, FindTokenizerFile(TokenizerFolder(spec)));
  ASSIGN_OR_RETURN(stages.prepared.tokenizer_digest, Sha256File(file));
  // Trained again after it was lost, it might be another one.
  stages.prepared.inputs.push_back({"tokenizer", file, TrainingJobs(spec), stages.prepared.tokenizer_digest});
  return stages;
}

}  // namespace polystill::coordinator
