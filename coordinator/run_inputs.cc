#include "coordinator/run_inputs.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/jobs.h"
#include "models/package_manifest.h"
#include "runtime/sha256.h"
#include "runtime/status.h"
#include "soft_labels/store_manifest.h"

namespace polystill::coordinator {
namespace {

template <typename Predicate>
std::vector<std::string> JobsThat(const v1::RunSpec& spec, const Predicate& holds) {
  std::vector<std::string> names;
  for (const PlannedJob& planned : PlanJobs(spec)) {
    if (holds(planned)) names.push_back(planned.job.name());
  }
  return names;
}

bool Trains(const PlannedJob& planned) { return planned.job.kind() == v1::Job::KIND_TRAIN; }

bool Asks(const PlannedJob& planned, const v1::Teacher& teacher) {
  const auto& asked = planned.teachers;
  return std::find(asked.begin(), asked.end(), teacher.name()) != asked.end();
}

// By its labels, or because it is evaluated or timed itself.
bool UsesPackage(const PlannedJob& planned, const v1::Teacher& teacher) {
  const auto is_its = [&](const v1::EvaluatedModel& model) { return model.package() == teacher.package(); };
  return Asks(planned, teacher) || std::any_of(planned.job.models().begin(), planned.job.models().end(), is_its) ||
         std::any_of(planned.job.timed().begin(), planned.job.timed().end(), is_its);
}

}  // namespace

std::vector<std::string> TrainingJobs(const v1::RunSpec& spec) { return JobsThat(spec, Trains); }

std::vector<RunInput> InputsOf(const v1::RunSpec& spec) {
  std::vector<RunInput> inputs = {{"tokenizer.path", spec.tokenizer().path(), TrainingJobs(spec)}};
  const auto add_model = [&](const std::string& key, const v1::Model& model, const std::vector<std::string>& jobs) {
    inputs.push_back({key + ".path", model.path(), jobs});
    inputs.push_back({key + ".initial", model.initial(), jobs});
  };
  add_model("student.model", spec.student().model(), JobsThat(spec, [](const PlannedJob& planned) {
              return Trains(planned) && !absl::StartsWith(planned.job.name(), "teacher:");
            }));
  for (int i = 0; i < spec.teachers_size(); ++i) {
    const v1::Teacher& teacher = spec.teachers(i);
    add_model(absl::StrCat("teachers.", i, ".train.model"), teacher.train().model(),
              {absl::StrCat("teacher:", teacher.name())});
    inputs.push_back({absl::StrCat("teachers.", i, ".package"), teacher.package(),
                      JobsThat(spec, [&](const PlannedJob& planned) { return UsesPackage(planned, teacher); })});
    if (teacher.store().empty()) continue;
    // Its manifest vouches for the rest.
    inputs.push_back({absl::StrCat("teachers.", i, ".store"),
                      absl::StrCat(teacher.store(), "/", soft_labels::kStoreManifestFile),
                      JobsThat(spec, [&](const PlannedJob& planned) { return Asks(planned, teacher); })});
  }
  std::erase_if(inputs, [](const RunInput& input) { return input.path.empty(); });
  return inputs;
}

absl::StatusOr<std::vector<RunInput>> WithDigests(std::vector<RunInput> inputs) {
  for (RunInput& input : inputs) {
    const bool is_folder = std::filesystem::is_directory(input.path);
    auto digest = is_folder ? models::PackageDigest(input.path) : Sha256File(input.path);
    RETURN_IF_ERROR(Annotate(digest.status(), input.key));
    input.digest = *std::move(digest);
  }
  return inputs;
}

}  // namespace polystill::coordinator
