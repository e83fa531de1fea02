#include "cli/launch.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/jobs.h"
#include "coordinator/run_folder.h"

namespace polystill::cli {
namespace {

constexpr char kTeacherPrefix[] = "teacher-";
constexpr char kThreadsOfAGpu[] = "2";

bool IsAsked(const std::vector<coordinator::PlannedJob>& jobs, const std::string& teacher) {
  return std::any_of(jobs.begin(), jobs.end(), [&](const coordinator::PlannedJob& planned) {
    return std::find(planned.teachers.begin(), planned.teachers.end(), teacher) != planned.teachers.end();
  });
}

// Whether the same labels are asked for again, and kept ones are of use. Masks, and draws of each epoch, are new in
// each pass over a record.
bool AsksAgain(const v1::RunSpec& spec, const v1::Teacher& teacher) {
  const auto& losses = spec.student().losses();
  return spec.student().epochs() > 1 && spec.task() != v1::TASK_MASKED_LM &&
         std::any_of(losses.begin(), losses.end(), [&](const v1::Loss& loss) {
           const bool asks =
               loss.kind() != v1::LOSS_KIND_TASK && (loss.teacher().empty() || loss.teacher() == teacher.name());
           return asks && !(loss.codec() == v1::CODEC_SAMPLED && loss.draws() == v1::Loss::DRAWS_PER_EPOCH);
         });
}

}  // namespace

Launch LaunchCoordinator(const std::string& folder, const std::string& run_file,
                         const std::vector<std::string>& settings, const std::string& address) {
  Launch launch{"coordinator", {absl::StrCat(folder, "/polystill-coordinator"), "--spec", run_file}};
  for (const std::string& setting : settings) launch.argv.insert(launch.argv.end(), {"--set", setting});
  launch.argv.insert(launch.argv.end(), {"--listen", address});
  return launch;
}

std::string LabelCachesOf(const v1::RunSpec& spec) {
  return absl::StrCat(spec.output(), "/", coordinator::kLabelCacheFolder);
}

std::vector<Launch> LaunchMembers(const std::string& folder, const v1::RunSpec& spec, const std::string& address,
                                  int cores) {
  std::vector<Launch> launches;
  const std::vector<coordinator::PlannedJob> jobs = coordinator::PlanJobs(spec);
  const auto starts = [&jobs](const v1::Teacher& teacher) {
    return teacher.address().empty() && teacher.store().empty() && IsAsked(jobs, teacher.name());
  };
  int servers = 0;
  for (const v1::Teacher& teacher : spec.teachers()) servers += starts(teacher) ? teacher.replicas() : 0;
  const std::string threads = std::to_string(std::max(1, cores / std::max(1, servers)));
  int gpu = 0;  // of the next teacher server that computes on one
  for (const v1::Teacher& teacher : spec.teachers()) {
    if (!starts(teacher)) continue;
    for (int i = 0; i < teacher.replicas(); ++i) {
      launches.push_back({absl::StrCat(kTeacherPrefix, teacher.name(), "-", i),
                          {absl::StrCat(folder, "/polystill-teacher"), "--coordinator", address, "--teacher",
                           teacher.name(), "--server-id", absl::StrCat(teacher.name(), "-", i), "--threads",
                           teacher.device() == v1::DEVICE_CUDA ? kThreadsOfAGpu : threads}});
      std::vector<std::string>& argv = launches.back().argv;
      if (teacher.cache_mb() > 0 && AsksAgain(spec, teacher)) {
        argv.insert(argv.end(), {"--cache", absl::StrCat(LabelCachesOf(spec), "/", teacher.name(), "-", i),
                                 "--cache-bytes", absl::StrCat(teacher.cache_mb(), "MiB")});
      }
      if (teacher.device() == v1::DEVICE_CUDA) argv.insert(argv.end(), {"--gpu", std::to_string(gpu++)});
    }
  }
  for (int i = 0; i < spec.student().workers(); ++i) {
    launches.push_back(LaunchStudent(folder, spec, address, i));
  }
  return launches;
}

Launch LaunchStudent(const std::string& folder, const v1::RunSpec& spec, const std::string& address, int index) {
  Launch launch{absl::StrCat(kStudentPrefix, index),
                {absl::StrCat(folder, "/polystill-student"), "--coordinator", address}};
  if (spec.student().device() == v1::DEVICE_CUDA) {
    launch.argv.insert(launch.argv.end(), {"--gpu", std::to_string(index)});
  }
  return launch;
}

bool CanSpare(const std::string& child, const v1::RunSpec& spec, const v1::RunStatus& status, int students) {
  if (absl::StartsWith(child, kStudentPrefix)) {
    const v1::Student& student = spec.student();
    return students >= (student.min_workers() > 0 ? student.min_workers() : student.workers());
  }
  const auto has_begun = [&](const coordinator::PlannedJob& planned) {
    return std::any_of(status.stages().begin(), status.stages().end(), [&](const v1::RunStatus::Stage& stage) {
      return stage.name() == planned.job.name() && (stage.finished() || stage.seconds() > 0);
    });
  };
  const std::vector<coordinator::PlannedJob> jobs = coordinator::PlanJobs(spec);
  return absl::StartsWith(child, kTeacherPrefix) &&
         std::all_of(jobs.begin(), jobs.end(), [&](const coordinator::PlannedJob& planned) {
           return planned.teachers.empty() || has_begun(planned);
         });
}

}  // namespace polystill::cli
