#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "polystill/v1/coordinator.pb.h"
#include "polystill/v1/corpus.pb.h"
#include "polystill/v1/run.pb.h"

namespace polystill::coordinator {

// A job as far as the run file alone determines it.
struct PlannedJob {
  // KIND_TRAIN: everything but steps and plan.index_digest, which need the index. KIND_EVALUATE: everything but the
  // languages of its selection when student.languages.targets is empty.
  v1::Job job;
  // The records that the job's index holds.
  v1::Selection selection;
  // KIND_TRAIN: passes over those records.
  double epochs = 0;
  // Names of the teachers that it asks for labels, in the order of its losses.
  std::vector<std::string> teachers;
  // Worker processes that do it together: with how many it starts, and as student.min_workers and max_workers say, the
  // fewest with which it goes on and the most that it takes in. 0: as many as `workers`.
  int workers = 1;
  int min_workers = 0;
  int max_workers = 0;
  // At the start: for more than the fewest to come.
  std::chrono::milliseconds last_call{0};
  // student.evict_slower_than; 0: nobody is left out for being slow.
  double evict_slower_than = 0;

  int fewest() const { return min_workers > 0 ? min_workers : workers; }
  int most() const { return max_workers > 0 ? max_workers : workers; }
};

// The jobs of a run in their order: "teacher:<name>" for each teacher that is trained here, "distilled", "no_teacher",
// "pseudo_label", "gold" and "gold_all" as baselines ask for them, "evaluate". `spec` as ReadRunFile
// (coordinator/run_file.h) returns it.
std::vector<PlannedJob> PlanJobs(const v1::RunSpec& spec);

// The records that early_stopping of a job measures on: those of its `where`, with their labels, in the job's languages
// and read as the job reads them.
v1::Selection HeldOutSelection(const PlannedJob& planned);

// The losses of the baseline pseudo_label: with the teacher's arg-max for whatever else they ask of its logits; same
// teachers and weights, and codecs where these hold an arg-max. Those of features are left out.
google::protobuf::RepeatedPtrField<v1::Loss> PseudoLabelLosses(const v1::Student& student);

// Whether a loss learns from a teacher's logits, and not from gold labels or features.
bool IsOfTeachersLogits(const v1::Loss& loss);

// Whether the run trains a tokeniser of its own.
bool TrainsTokenizer(const v1::RunSpec& spec);

// What a tokeniser may be trained on: the texts that the training jobs read. No label is read.
std::vector<v1::Selection> TokenizerSelections(const v1::RunSpec& spec);

// Names of all stages in their order: "index", "tokenizer" when one is trained, then the jobs.
std::vector<std::string> StageNames(const v1::RunSpec& spec);

// Where the package of a model of this run is written: "teacher-english", "distilled", "no_teacher", ... in
// <output>/models/.
std::string PackageFolder(const v1::RunSpec& spec, const std::string& model);

// The package that a teacher serves: its own folder, or the one that this run trains. Empty when it runs elsewhere.
std::string TeacherPackage(const v1::RunSpec& spec, const v1::Teacher& teacher);

// The first teacher that is trained here, whose records no_teacher learns from. Null when there is none. Points into
// `spec`.
const v1::Teacher* TrainedTeacher(const v1::RunSpec& spec);

// The teacher of the report, which zero_shot evaluates and whose speed is measured: the one that the first loss of the
// student asks, or else the run's first. Null without any. Points into `spec`.
const v1::Teacher* ReportedTeacher(const v1::RunSpec& spec);

// Folder of the run's tokeniser; empty with kind ids. With tokenizer.path the coordinator copies that file there.
std::string TokenizerFolder(const v1::RunSpec& spec);

}  // namespace polystill::coordinator
