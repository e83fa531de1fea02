#include "coordinator/jobs.h"

#include <google/protobuf/util/message_differencer.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "coordinator/run_folder.h"
#include "runtime/counter_rng.h"
#include "runtime/yaml_proto.h"
#include "soft_labels/codec.h"

namespace polystill::coordinator {
namespace {

// Version of the plan's algorithm, and the records that are shuffled together at least
// (proto/polystill/v1/corpus.proto).
constexpr int kPlanAlgorithm = 2;
constexpr int64_t kShuffleWindow = 65'536;

// The columns of the table before and after the distilled student, by how much they know.
constexpr std::pair<v1::Baseline, const char*> kTrainedBaselinesBelow[] = {{v1::BASELINE_NO_TEACHER, "no_teacher"},
                                                                           {v1::BASELINE_PSEUDO_LABEL, "pseudo_label"}};
constexpr std::pair<v1::Baseline, const char*> kTrainedBaselinesAbove[] = {{v1::BASELINE_GOLD, "gold"},
                                                                           {v1::BASELINE_GOLD_ALL, "gold_all"}};

bool Asks(const v1::RunSpec& spec, v1::Baseline baseline) {
  return std::find(spec.baselines().begin(), spec.baselines().end(), baseline) != spec.baselines().end();
}

// The first teacher of which `holds` is true; null when there is none.
template <typename Predicate>
const v1::Teacher* FirstTeacher(const v1::RunSpec& spec, const Predicate& holds) {
  const auto found = std::find_if(spec.teachers().begin(), spec.teachers().end(), holds);
  return found == spec.teachers().end() ? nullptr : &*found;
}

v1::Loss TaskLoss() {
  v1::Loss loss;
  loss.set_kind(v1::LOSS_KIND_TASK);
  FillDefaults(&loss);
  return loss;
}

void AddSide(v1::Side side, v1::Selection* selection) {
  if (side == v1::SIDE_SOURCE_TEXT) {
    selection->set_reads_source_text(true);
  } else {
    selection->set_reads_text(true);
  }
}

template <typename Where>
v1::Selection MakeSelection(const v1::RunSpec& spec, const Where& where, v1::Side side, bool reads_labels) {
  v1::Selection selection;
  *selection.mutable_corpus() = spec.corpus();
  *selection.mutable_tokenizer() = spec.tokenizer();
  *selection.mutable_where() = where;
  selection.set_task(spec.task());
  selection.set_reads_labels(reads_labels && spec.task() != v1::TASK_MASKED_LM);
  AddSide(side, &selection);
  return selection;
}

// What all jobs of a run share.
v1::Job MakeJob(const v1::RunSpec& spec, const std::string& name, v1::Job::Kind kind) {
  v1::Job job;
  job.set_name(name);
  job.set_kind(kind);
  job.set_tokenizer_folder(TokenizerFolder(spec));
  *job.mutable_tokenizer() = spec.tokenizer();
  *job.mutable_labels() = spec.corpus().labels();
  job.set_task(spec.task());
  if (spec.task() == v1::TASK_MASKED_LM) *job.mutable_masking() = spec.masking();
  job.set_seed(spec.seed());
  job.set_dtype(spec.student().dtype());
  job.set_threads(spec.student().threads());
  job.set_device(spec.student().device());
  return job;
}

// A training of `model` with `losses`; the records are left to the caller.
PlannedJob MakeTraining(const v1::RunSpec& spec, const std::string& name, const v1::Model& model, v1::Side reads,
                        const v1::Optimizer& optimizer, int batch_size) {
  PlannedJob planned;
  planned.workers = spec.student().workers();
  planned.min_workers = spec.student().min_workers();
  planned.max_workers = spec.student().max_workers();
  planned.last_call = std::chrono::milliseconds(std::llround(spec.student().last_call_seconds() * 1000));
  planned.evict_slower_than = spec.student().evict_slower_than();
  v1::Job& job = planned.job = MakeJob(spec, name, v1::Job::KIND_TRAIN);
  const std::string folder = absl::StrReplaceAll(name, {{":", "-"}});
  *job.mutable_model() = model;
  job.set_reads(reads);
  *job.mutable_optimizer() = optimizer;
  job.set_checkpoint_every(spec.student().checkpoint_every());
  job.set_keep_checkpoints(spec.student().keep_checkpoints());
  job.set_prefetch(spec.student().prefetch());
  job.set_micro_batch(spec.student().micro_batch());
  job.set_loss_memory_mb(spec.student().loss_memory_mb());
  job.set_autocast(spec.student().autocast());
  job.set_package(PackageFolder(spec, folder));
  job.set_checkpoints(absl::StrCat(spec.output(), "/checkpoints/", folder));
  job.set_model_name(name.substr(name.find(':') + 1));
  v1::PlanSegment* plan = job.mutable_plan();
  plan->set_algorithm(kPlanAlgorithm);
  plan->set_seed(spec.seed());
  plan->set_batch_size(batch_size);
  plan->mutable_mixture()->set_kind(v1::Mixture::KIND_PROPORTIONAL);
  plan->mutable_mixture()->set_tau(1.0);
  plan->set_shuffle_window(kShuffleWindow);
  return planned;
}

PlannedJob TeacherJob(const v1::RunSpec& spec, const v1::Teacher& teacher) {
  const v1::TeacherTraining& train = teacher.train();
  PlannedJob planned = MakeTraining(spec, absl::StrCat("teacher:", teacher.name()), train.model(), teacher.reads(),
                                    train.optimizer(), train.batch_size());
  // Draws of its own, so that "no_teacher", which learns from the same records, is a second training and not a copy.
  const uint64_t seed = CombineKey(spec.seed(), NameWord(planned.job.name()));
  planned.job.set_seed(seed);
  planned.job.mutable_plan()->set_seed(seed);
  *planned.job.add_losses() = TaskLoss();
  if (train.has_early_stopping()) *planned.job.mutable_early_stopping() = train.early_stopping();
  planned.selection = MakeSelection(spec, train.where(), teacher.reads(), true);
  planned.epochs = train.epochs();
  return planned;
}

// The student's model on the teacher's records.
PlannedJob NoTeacherJob(const v1::RunSpec& spec, const v1::Teacher& teacher) {
  const v1::Student& student = spec.student();
  PlannedJob planned =
      MakeTraining(spec, "no_teacher", student.model(), teacher.reads(), student.optimizer(), student.batch_size());
  *planned.job.add_losses() = TaskLoss();
  planned.selection = MakeSelection(spec, teacher.train().where(), teacher.reads(), true);
  planned.epochs = teacher.train().epochs();
  return planned;
}

// The student on its own records: "distilled" with the student's losses, the baselines with others.
PlannedJob StudentJob(const v1::RunSpec& spec, const std::string& name,
                      const google::protobuf::RepeatedPtrField<v1::Loss>& losses) {
  const v1::Student& student = spec.student();
  PlannedJob planned =
      MakeTraining(spec, name, student.model(), student.reads(), student.optimizer(), student.batch_size());
  if (student.has_early_stopping()) *planned.job.mutable_early_stopping() = student.early_stopping();
  const bool reads_labels =
      std::any_of(losses.begin(), losses.end(), [](const v1::Loss& loss) { return loss.kind() == v1::LOSS_KIND_TASK; });
  planned.selection = MakeSelection(spec, student.where(), student.reads(), reads_labels);
  *planned.selection.mutable_languages() = student.languages().targets();
  for (const v1::Loss& loss : losses) {
    const v1::Teacher* teacher =
        FirstTeacher(spec, [&](const v1::Teacher& teacher) { return teacher.name() == loss.teacher(); });
    if (loss.kind() == v1::LOSS_KIND_TASK || teacher == nullptr) continue;
    AddSide(teacher->reads(), &planned.selection);
    const bool known =
        std::find(planned.teachers.begin(), planned.teachers.end(), teacher->name()) != planned.teachers.end();
    if (!known) planned.teachers.push_back(teacher->name());
  }
  *planned.job.mutable_losses() = losses;
  *planned.job.mutable_plan()->mutable_mixture() = student.languages().mixture();
  planned.epochs = student.epochs();
  return planned;
}

google::protobuf::RepeatedPtrField<v1::Loss> GoldLosses() {
  google::protobuf::RepeatedPtrField<v1::Loss> losses;
  *losses.Add() = TaskLoss();
  return losses;
}

// The student on the gold labels of its own records and of those that teachers are trained on here, each once.
PlannedJob GoldAllJob(const v1::RunSpec& spec) {
  PlannedJob planned = StudentJob(spec, "gold_all", GoldLosses());
  v1::Selection& selection = planned.selection;
  v1::Selection::Alternative& own = *selection.add_alternatives();
  own.mutable_where()->swap(*selection.mutable_where());
  own.mutable_languages()->Swap(selection.mutable_languages());
  for (const v1::Teacher& teacher : spec.teachers()) {
    if (teacher.has_train()) *selection.add_alternatives()->mutable_where() = teacher.train().where();
  }
  // Weights are given for the student's languages; the teacher's have none.
  v1::Mixture& mixture = *planned.job.mutable_plan()->mutable_mixture();
  if (mixture.kind() == v1::Mixture::KIND_WEIGHTS) {
    mixture.set_kind(v1::Mixture::KIND_PROPORTIONAL);
    mixture.clear_weights();
  }
  return planned;
}

// Every model on the student's side of the records of the final table.
PlannedJob EvaluateJob(const v1::RunSpec& spec) {
  PlannedJob planned;
  planned.job = MakeJob(spec, "evaluate", v1::Job::KIND_EVALUATE);
  planned.selection = MakeSelection(spec, spec.evaluate().where(), spec.student().reads(), true);
  const auto& asked = spec.evaluate().languages();
  *planned.selection.mutable_languages() = asked.empty() ? spec.student().languages().targets() : asked;
  planned.job.set_predictions(absl::StrCat(spec.output(), "/predictions.parquet"));
  const auto add = [&](const std::string& name, const std::string& package) {
    v1::EvaluatedModel* model = planned.job.add_models();
    model->set_name(name);
    model->set_package(package);
    model->set_reads(spec.student().reads());
  };
  const v1::Teacher* teacher = ReportedTeacher(spec);
  const std::string teacher_package = teacher == nullptr ? "" : TeacherPackage(spec, *teacher);
  if (Asks(spec, v1::BASELINE_ZERO_SHOT) && !teacher_package.empty()) add("zero_shot", teacher_package);
  for (const auto& [baseline, name] : kTrainedBaselinesBelow) {
    if (Asks(spec, baseline)) add(name, PackageFolder(spec, name));
  }
  add("distilled", PackageFolder(spec, "distilled"));
  for (const auto& [baseline, name] : kTrainedBaselinesAbove) {
    if (Asks(spec, baseline)) add(name, PackageFolder(spec, name));
  }
  // Both on the texts that the student reads, so that they are compared on the same.
  const auto time = [&](const std::string& name, const std::string& package) {
    v1::EvaluatedModel* model = planned.job.add_timed();
    model->set_name(name);
    model->set_package(package);
    model->set_reads(spec.student().reads());
  };
  if (!teacher_package.empty()) time("teacher", teacher_package);
  time("student", PackageFolder(spec, "distilled"));
  planned.job.set_latency(absl::StrCat(spec.output(), "/", kLatencyFile));
  return planned;
}

}  // namespace

std::vector<PlannedJob> PlanJobs(const v1::RunSpec& spec) {
  std::vector<PlannedJob> jobs;
  for (const v1::Teacher& teacher : spec.teachers()) {
    if (teacher.has_train()) jobs.push_back(TeacherJob(spec, teacher));
  }
  jobs.push_back(StudentJob(spec, "distilled", spec.student().losses()));
  const v1::Teacher* trained = TrainedTeacher(spec);
  if (Asks(spec, v1::BASELINE_NO_TEACHER) && trained != nullptr) jobs.push_back(NoTeacherJob(spec, *trained));
  if (Asks(spec, v1::BASELINE_PSEUDO_LABEL)) {
    jobs.push_back(StudentJob(spec, "pseudo_label", PseudoLabelLosses(spec.student())));
  }
  if (Asks(spec, v1::BASELINE_GOLD)) jobs.push_back(StudentJob(spec, "gold", GoldLosses()));
  if (Asks(spec, v1::BASELINE_GOLD_ALL)) jobs.push_back(GoldAllJob(spec));
  jobs.push_back(EvaluateJob(spec));
  return jobs;
}

v1::Selection HeldOutSelection(const PlannedJob& planned) {
  v1::Selection selection = planned.selection;
  // Of a union, the student's own languages: what "distilled" and "gold" are measured on.
  if (selection.alternatives_size() > 0) *selection.mutable_languages() = selection.alternatives(0).languages();
  selection.clear_alternatives();
  *selection.mutable_where() = planned.job.early_stopping().where();
  selection.set_reads_labels(planned.job.task() != v1::TASK_MASKED_LM);
  // What the model reads; a teacher may read another side of the training records.
  selection.clear_reads_text();
  selection.clear_reads_source_text();
  AddSide(planned.job.reads(), &selection);
  return selection;
}

google::protobuf::RepeatedPtrField<v1::Loss> PseudoLabelLosses(const v1::Student& student) {
  google::protobuf::RepeatedPtrField<v1::Loss> losses;
  for (const v1::Loss& loss : student.losses()) {
    if (loss.kind() == v1::LOSS_KIND_TASK) *losses.Add() = loss;
    if (!IsOfTeachersLogits(loss)) continue;
    v1::Loss& hard = *losses.Add() = loss;
    hard.set_kind(v1::LOSS_KIND_HARD_LABEL);
    hard.set_temperature(1.0);
    if (!soft_labels::CheckServes(hard).ok()) hard.set_codec(v1::CODEC_CLASSES);
  }
  return losses;
}

bool IsOfTeachersLogits(const v1::Loss& loss) {
  return loss.kind() != v1::LOSS_KIND_TASK && loss.kind() != v1::LOSS_KIND_EMBEDDING &&
         loss.kind() != v1::LOSS_KIND_HIDDEN;
}

bool TrainsTokenizer(const v1::RunSpec& spec) {
  return spec.tokenizer().kind() == v1::Tokenizer::KIND_SENTENCEPIECE && spec.tokenizer().path().empty();
}

std::vector<v1::Selection> TokenizerSelections(const v1::RunSpec& spec) {
  std::vector<v1::Selection> selections;
  for (const PlannedJob& planned : PlanJobs(spec)) {
    // A union of other trainings' records ("gold_all") would only give them more weight.
    if (planned.job.kind() != v1::Job::KIND_TRAIN || planned.selection.alternatives_size() > 0) continue;
    v1::Selection selection = planned.selection;
    selection.set_reads_labels(false);
    const auto same_records = [&](const v1::Selection& other) {
      v1::Selection copy = selection;
      copy.set_reads_text(other.reads_text());
      copy.set_reads_source_text(other.reads_source_text());
      return google::protobuf::util::MessageDifferencer::Equals(copy, other);
    };
    const auto known = std::find_if(selections.begin(), selections.end(), same_records);
    if (known == selections.end()) {
      selections.push_back(selection);
      continue;
    }
    known->set_reads_text(known->reads_text() || selection.reads_text());
    known->set_reads_source_text(known->reads_source_text() || selection.reads_source_text());
  }
  return selections;
}

std::vector<std::string> StageNames(const v1::RunSpec& spec) {
  std::vector<std::string> names = {"index"};
  if (TrainsTokenizer(spec)) names.push_back("tokenizer");
  for (const PlannedJob& planned : PlanJobs(spec)) names.push_back(planned.job.name());
  return names;
}

std::string PackageFolder(const v1::RunSpec& spec, const std::string& model) {
  return absl::StrCat(spec.output(), "/models/", model);
}

std::string TeacherPackage(const v1::RunSpec& spec, const v1::Teacher& teacher) {
  return teacher.has_train() ? PackageFolder(spec, absl::StrCat("teacher-", teacher.name())) : teacher.package();
}

const v1::Teacher* TrainedTeacher(const v1::RunSpec& spec) {
  return FirstTeacher(spec, [](const v1::Teacher& teacher) { return teacher.has_train(); });
}

const v1::Teacher* ReportedTeacher(const v1::RunSpec& spec) {
  for (const v1::Loss& loss : spec.student().losses()) {
    if (loss.kind() == v1::LOSS_KIND_TASK || loss.teacher().empty()) continue;
    return FirstTeacher(spec, [&](const v1::Teacher& teacher) { return teacher.name() == loss.teacher(); });
  }
  return spec.teachers().empty() ? nullptr : &spec.teachers(0);
}

std::string TokenizerFolder(const v1::RunSpec& spec) {
  return spec.tokenizer().kind() == v1::Tokenizer::KIND_IDS ? "" : absl::StrCat(spec.output(), "/tokenizer");
}

}  // namespace polystill::coordinator
