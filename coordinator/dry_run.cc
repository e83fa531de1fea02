#include "coordinator/dry_run.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/stages.h"
#include "corpus/masking.h"
#include "corpus/plan.h"
#include "losses/memory.h"
#include "models/outputs.h"
#include "models/package_manifest.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/look_ahead.h"
#include "soft_labels/outputs.h"
#include "soft_labels/store_manifest.h"

namespace polystill::coordinator {
namespace {

// Of a record's row in the predictions beside the probabilities: id, language, group, label; a guess.
constexpr int64_t kPredictionBytes = 48;
// What stands in place of probabilities with task masked_lm: token, rank, log-probability.
constexpr int64_t kGuessNumbers = 3;

std::string Bytes(double bytes) {
  constexpr const char* kUnits[] = {"B", "KB", "MB", "GB", "TB"};
  size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < std::size(kUnits); ++unit) bytes /= 1000;
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", bytes, kUnits[unit]);
}

int64_t ElementBytes(const v1::Job& job) { return job.dtype() == v1::Student::DTYPE_FLOAT64 ? 8 : 4; }

// Tensors of a checkpoint, in multiples of the parameters: themselves, the optimiser's moments, the best so far.
int64_t CopiesInCheckpoint(const v1::Job& job) {
  const bool adam = job.optimizer().kind() != v1::Optimizer::KIND_SGD;
  return 1 + (adam ? 2 : job.optimizer().momentum() > 0 ? 1 : 0) + (job.has_early_stopping() ? 1 : 0);
}

// What teachers say about one record.
struct LabelSize {
  int64_t bytes = 0;
  // Whether that is for a record of the most tokens.
  bool at_most = false;
  // Teachers whose features are of widths that only they know.
  std::set<std::string> unknown;
};

// The same of a teacher whose labels are in a store: of the first feature, since all of a model's have its width.
int64_t StoredWidth(const std::string& store) {
  const auto manifest = soft_labels::ReadStore(store);
  return manifest.ok() && manifest->teacher().features_size() > 0 ? manifest->teacher().features(0).width() : 0;
}

// Numbers of a row of a feature, as far as the run file or a package says it; else 0.
int64_t FeatureWidth(const v1::RunSpec& spec, const std::string& name) {
  for (const v1::Teacher& teacher : spec.teachers()) {
    if (teacher.name() != name) continue;
    if (teacher.has_train()) {
      const v1::Model& model = teacher.train().model();
      return model.kind() == v1::Model::KIND_TORCHSCRIPT ? 0 : model.width();
    }
    if (!teacher.store().empty()) return StoredWidth(teacher.store());
    const auto manifest = models::ReadPackageManifest(teacher.package());
    return manifest.ok() ? manifest->model().width() : 0;
  }
  return 0;
}

// Rows of logits of a record, at most.
int64_t MostRows(const v1::Job& job) {
  const int64_t tokens = job.tokenizer().max_length();
  if (job.task() == v1::TASK_MASKED_LM) return corpus::MostMasked(job.masking(), tokens);
  return models::JudgesTokens(job.task()) ? tokens : 1;
}

// An output travels once for all losses that take it by one codec.
LabelSize SizeOfLabels(const v1::RunSpec& spec, const v1::Job& job) {
  LabelSize size;
  std::set<std::tuple<std::string, soft_labels::CodecSettings, std::string>> kinds;
  for (const v1::Loss& loss : job.losses()) {
    for (const std::string& output : soft_labels::TeacherOutputsOf(loss)) {
      const soft_labels::CodecSettings settings = soft_labels::SettingsOf(loss);
      if (!kinds.emplace(loss.teacher(), settings, output).second) continue;
      const bool logits = output == soft_labels::kLogits;
      const int64_t width = logits ? models::LogitCount(job.task(), job.labels_size(), job.tokenizer().vocab_size())
                                   : FeatureWidth(spec, loss.teacher());
      const int64_t head_width = settings.codec == v1::CODEC_HIDDEN_HEAD ? FeatureWidth(spec, loss.teacher()) : 0;
      if ((settings.codec == v1::CODEC_HIDDEN_HEAD ? head_width : width) == 0) size.unknown.insert(loss.teacher());
      const bool of_tokens = logits ? models::JudgesTokens(job.task()) : models::IsOfTokens(output);
      size.at_most |= of_tokens || settings.codec == v1::CODEC_SAMPLED;
      const int64_t rows = logits ? MostRows(job) : of_tokens ? job.tokenizer().max_length() : 1;
      size.bytes += rows * soft_labels::RowBytes(soft_labels::SpecOf(settings, 0), {output, width, false, head_width});
    }
  }
  return size;
}

class DryRun {
 public:
  DryRun(const v1::RunSpec& spec, const Stages& stages, const CountParameters& parameters)
      : spec_(spec), stages_(stages), parameters_(parameters) {}

  absl::StatusOr<std::string> Describe() {
    for (const PlannedJob& planned : stages_.prepared.jobs) {
      if (planned.job.kind() == v1::Job::KIND_TRAIN) {
        RETURN_IF_ERROR(Annotate(AddTraining(planned), planned.job.name()));
      } else {
        AddEvaluation(planned);
      }
    }
    AddProcesses();
    absl::StrAppend(&text_, "disk in ", spec_.output(), ": packages ", Bytes(package_bytes_), ", checkpoints at most ",
                    Bytes(checkpoint_bytes_),
                    models::JudgesTokens(spec_.task()) ? ", predictions at most " : ", predictions about ",
                    Bytes(prediction_bytes_), "\n");
    return text_;
  }

 private:
  absl::Status AddTraining(const PlannedJob& planned) {
    const v1::Job& job = planned.job;
    const auto index = stages_.indexes.at(job.plan().index_digest());
    ASSIGN_OR_RETURN(const corpus::Plan plan, corpus::Plan::Create(job.plan(), index));
    ASSIGN_OR_RETURN(const int64_t parameters, parameters_(job));
    absl::StrAppend(&text_, job.name(), ": ", job.steps(), " steps of ", job.plan().batch_size(), " records, ",
                    parameters, " parameters\n");
    for (int i = 0; i < index->languages_size(); ++i) {
      const auto& language = index->languages(i);
      const double drawn = static_cast<double>(job.steps()) * static_cast<double>(plan.quotas()[i]) /
                           static_cast<double>(plan.cycle_steps());
      absl::StrAppendFormat(&text_, "  %-12s %12d records %10.2f passes\n", language.name(), language.records(),
                            drawn / static_cast<double>(language.records()));
    }
    if (!job.validation_index_digest().empty()) {
      absl::StrAppend(&text_, "  held out: ", RecordsOf(job.validation_index_digest()), " records, every ",
                      job.early_stopping().every(), " steps\n");
    }
    const LabelSize labels = SizeOfLabels(spec_, job);
    const auto bytes = static_cast<double>(labels.bytes * job.plan().batch_size() * job.steps());
    if (bytes > 0) {
      absl::StrAppend(&text_, "  soft labels: ", labels.at_most ? "at most " : "", Bytes(bytes), "\n");
      const int64_t step_bytes = labels.bytes * SliceOf(job);
      // However long labels take.
      const int most_ahead =
          soft_labels::LookAheadFor({.label_seconds = 1, .step_seconds = 0, .label_bytes = step_bytes});
      const int steps = job.prefetch() > 0 ? job.prefetch() : most_ahead;
      absl::StrAppend(&text_, "  asked for ahead: at most ", steps, " steps, ",
                      Bytes(static_cast<double>(step_bytes * steps)), " a worker\n");
    }
    AddLossMemory(job);
    for (const std::string& teacher : labels.unknown) {
      absl::StrAppend(&text_, "  features of teacher '", teacher, "': their size is known once it is asked\n");
    }
    const auto model_bytes = static_cast<double>(parameters * ElementBytes(job));
    package_bytes_ += model_bytes;
    // Finished jobs keep one; the one under way those that are asked for, and the one being written.
    const double checkpoint = model_bytes * static_cast<double>(CopiesInCheckpoint(job));
    checkpoint_bytes_ += checkpoint;
    checkpoint_bytes_peak_ = std::max(checkpoint_bytes_peak_, checkpoint * job.keep_checkpoints());
    return absl::OkStatus();
  }

  // Records of a step, of the worker with the most.
  int64_t SliceOf(const v1::Job& job) const {
    const int64_t workers = spec_.student().workers();
    return (job.plan().batch_size() + workers - 1) / workers;
  }

  // What a pass of the worker with the most records takes, against what it may.
  void AddLossMemory(const v1::Job& job) {
    losses::LogitShape shape;
    const int64_t slice = SliceOf(job);
    shape.rows = (job.micro_batch() > 0 ? std::min<int64_t>(job.micro_batch(), slice) : slice) * MostRows(job);
    shape.classes = models::LogitCount(job.task(), job.labels_size(), job.tokenizer().vocab_size());
    shape.number_bytes = ElementBytes(job);
    const bool native = job.model().kind() != v1::Model::KIND_TORCHSCRIPT;
    const bool by_head = native && job.autocast() != v1::Student::AUTOCAST_BFLOAT16;
    if (by_head && losses::IsChunked(shape)) shape.head_width = job.model().width();
    const auto bytes = static_cast<double>(losses::LogitBytes(job.losses(), shape));
    const auto most = static_cast<double>(job.loss_memory_mb()) * (1 << 20);
    absl::StrAppend(&text_, "  logits and losses: at most ", Bytes(bytes), " of a worker's memory",
                    bytes > most ? absl::StrCat(", more than student.loss_memory_mb allows (", Bytes(most),
                                                "): lower student.micro_batch or let labels come by another codec")
                                 : "",
                    "\n");
  }

  void AddEvaluation(const PlannedJob& planned) {
    const int64_t records = RecordsOf(planned.job.plan().index_digest());
    absl::StrAppend(&text_, planned.job.name(), ": ", planned.job.models_size(), " models on ", records, " records\n");
    checkpoint_bytes_ += checkpoint_bytes_peak_;
    const int64_t numbers = planned.job.task() == v1::TASK_MASKED_LM ? kGuessNumbers : planned.job.labels_size();
    prediction_bytes_ += static_cast<double>(records * MostRows(planned.job) *
                                             (kPredictionBytes + 4 * planned.job.models_size() * numbers));
  }

  void AddProcesses() {
    int teachers = 0;
    int64_t cache_mb = 0;
    for (const v1::Teacher& teacher : spec_.teachers()) {
      const bool asked =
          std::any_of(stages_.prepared.jobs.begin(), stages_.prepared.jobs.end(), [&](const auto& planned) {
            return std::find(planned.teachers.begin(), planned.teachers.end(), teacher.name()) !=
                   planned.teachers.end();
          });
      if (!teacher.address().empty() || !teacher.store().empty() || !asked) continue;
      teachers += teacher.replicas();
      cache_mb += teacher.replicas() * teacher.cache_mb();
    }
    absl::StrAppend(&text_, "processes: 1 coordinator, ", teachers, " teacher servers, ", spec_.student().workers(),
                    " student workers, of ", spec_.student().threads(), " threads each\n");
    if (cache_mb == 0) return;
    absl::StrAppend(&text_, "disk of label caches while it runs: at most ",
                    Bytes(static_cast<double>(cache_mb) * (int64_t{1} << 20)), "\n");
  }

  int64_t RecordsOf(const std::string& digest) const {
    int64_t records = 0;
    for (const auto& language : stages_.indexes.at(digest)->languages()) records += language.records();
    return records;
  }

  const v1::RunSpec& spec_;
  const Stages& stages_;
  const CountParameters& parameters_;
  std::string text_;
  double package_bytes_ = 0;
  double checkpoint_bytes_ = 0;
  double checkpoint_bytes_peak_ = 0;
  double prediction_bytes_ = 0;
};

}  // namespace

absl::StatusOr<std::string> DescribeDryRun(const v1::RunSpec& spec, const CountParameters& parameters) {
  const std::atomic<bool> stop = false;
  ASSIGN_OR_RETURN(const Stages stages, IndexJobs(
                                            spec, [](const StageProgress&) {}, stop));
  return DryRun(spec, stages, parameters).Describe();
}

}  // namespace polystill::coordinator
