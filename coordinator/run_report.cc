#include "coordinator/run_report.h"

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/jobs.h"
#include "coordinator/run_folder.h"
#include "runtime/files.h"
#include "runtime/status.h"
#include "runtime/yaml_proto.h"

namespace polystill::coordinator {
namespace {

constexpr char kStudentJob[] = "distilled";
constexpr char kPackageFile[] = "teacher.yaml";
constexpr int64_t kMaxPackageFileBytes = 1 << 20;

template <typename Enum>
std::string NameOf(const google::protobuf::EnumDescriptor* descriptor, Enum value) {
  const auto* found = descriptor->FindValueByNumber(value);
  return found == nullptr ? "" : EnumName(found);
}

std::string SideName(v1::Side side) { return NameOf(v1::Side_descriptor(), side); }

const v1::Job* FindJob(const FinishedRun& run, v1::Job::Kind kind, const std::string& name) {
  for (const PlannedJob& planned : run.jobs) {
    if (planned.job.kind() == kind && (name.empty() || planned.job.name() == name)) return &planned.job;
  }
  return nullptr;
}

absl::StatusOr<evaluation::ReportedModel> TeacherOf(const FinishedRun& run, const v1::Teacher& teacher) {
  evaluation::ReportedModel model;
  model.name = teacher.name();
  model.package = TeacherPackage(run.spec, teacher);
  const auto digest = run.teacher_digests.find(teacher.name());
  if (digest != run.teacher_digests.end()) model.digest = digest->second;
  model.reads = SideName(teacher.reads());
  if (model.package.empty()) return model;
  ASSIGN_OR_RETURN(model.parameters, ReadParameters(model.package));
  return model;
}

// Bytes of all files of a package.
absl::StatusOr<int64_t> PackageBytes(const std::string& package) {
  int64_t bytes = 0;
  std::error_code error;
  for (std::filesystem::recursive_directory_iterator at(package, error), end; !error && at != end;
       at.increment(error)) {
    if (at->is_regular_file(error)) bytes += static_cast<int64_t>(at->file_size(error));
  }
  if (error) return FileError(error.value(), package, "read");
  return bytes;
}

absl::StatusOr<std::vector<evaluation::ModelCost>> CostsOf(const FinishedRun& run) {
  const v1::Job* evaluate = FindJob(run, v1::Job::KIND_EVALUATE, "");
  std::vector<evaluation::ModelCost> costs;
  if (evaluate == nullptr || evaluate->latency().empty()) return costs;
  ASSIGN_OR_RETURN(const auto latencies, evaluation::ReadLatencies(evaluate->latency()));
  for (const v1::EvaluatedModel& model : evaluate->timed()) {
    evaluation::ModelCost cost;
    cost.role = model.name();
    ASSIGN_OR_RETURN(cost.parameters, ReadParameters(model.package()));
    ASSIGN_OR_RETURN(cost.bytes, PackageBytes(model.package()));
    const auto latency = latencies.find(model.name());
    if (latency != latencies.end()) cost.latency = latency->second;
    costs.push_back(std::move(cost));
  }
  return costs;
}

// Every file that some job read, once.
std::vector<evaluation::RunFacts::File> FilesOf(const FinishedRun& run) {
  std::set<std::string> seen;
  std::vector<evaluation::RunFacts::File> files;
  for (const auto& index : run.indexes) {
    for (const auto& file : index->files()) {
      if (seen.insert(file.path()).second) files.push_back({file.path(), file.sha256(), file.bytes()});
    }
  }
  return files;
}

// The codecs of the losses that ask a teacher, each once.
std::string CodecsOf(const v1::RunSpec& spec) {
  std::set<std::string> codecs;
  for (const v1::Loss& loss : spec.student().losses()) {
    if (loss.kind() != v1::LOSS_KIND_TASK) codecs.insert(NameOf(v1::Codec_descriptor(), loss.codec()));
  }
  return absl::StrJoin(codecs, ", ");
}

}  // namespace

absl::StatusOr<std::optional<int64_t>> ReadParameters(const std::string& package) {
  const std::string path = absl::StrCat(package, "/", kPackageFile);
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPackageFileBytes));
  try {
    const YAML::Node root = YAML::Load(text);
    const YAML::Node parameters = root["model"] ? root["model"]["parameters"] : YAML::Node();
    if (!parameters || parameters.IsNull()) return std::nullopt;
    return parameters.as<int64_t>();
  } catch (const YAML::Exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": model.parameters is no number: ", error.what()));
  }
}

absl::StatusOr<evaluation::RunFacts> FactsOf(const FinishedRun& run) {
  evaluation::RunFacts facts;
  facts.run = run.spec.name();
  for (const int metric : run.spec.evaluate().metrics()) {
    facts.metrics.push_back(NameOf(v1::Evaluate::Metric_descriptor(), metric));
  }
  facts.top_k = run.spec.evaluate().top_k();
  facts.resamples = run.spec.evaluate().bootstrap();
  facts.seed = run.spec.seed();
  for (const auto& stage : run.status.stages()) {
    facts.seconds.emplace_back(stage.name(), stage.seconds());
    for (const auto& eviction : stage.evictions()) {
      const auto& worker = eviction.worker();
      facts.evictions.push_back(
          {stage.name(), worker.worker_id(), worker.host(), worker.pid(), worker.ratio(), eviction.step()});
    }
    if (FindJob(run, v1::Job::KIND_TRAIN, stage.name()) != nullptr) {
      facts.steps.push_back({stage.name(), stage.done(), stage.total()});
    }
    if (stage.name() != kStudentJob) continue;
    facts.label_count = stage.labels();
    facts.label_bytes = stage.label_bytes();
  }
  facts.codec = CodecsOf(run.spec);
  if (const v1::Teacher* teacher = ReportedTeacher(run.spec)) {
    ASSIGN_OR_RETURN(facts.teacher, TeacherOf(run, *teacher));
  }
  facts.student.name = kStudentJob;
  facts.student.package = PackageFolder(run.spec, kStudentJob);
  facts.student.digest = run.student_digest;
  facts.student.reads = SideName(run.spec.student().reads());
  ASSIGN_OR_RETURN(facts.student.parameters, ReadParameters(facts.student.package));
  facts.workers = run.spec.student().workers();
  ASSIGN_OR_RETURN(facts.costs, CostsOf(run));
  facts.files = FilesOf(run);
  return facts;
}

absl::StatusOr<std::string> WriteRunReport(const FinishedRun& run, const std::stop_token& stop) {
  const v1::Job* evaluate = FindJob(run, v1::Job::KIND_EVALUATE, "");
  if (evaluate == nullptr) return absl::InternalError("the run has no evaluation to report");
  ASSIGN_OR_RETURN(const evaluation::RunFacts facts, FactsOf(run));
  const std::string report = absl::StrCat(run.spec.output(), "/", kReportFile);
  RETURN_IF_ERROR(evaluation::WriteReport(facts, evaluate->predictions(), report, stop));
  return report;
}

}  // namespace polystill::coordinator
