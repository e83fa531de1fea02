#include "student_worker/projections.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "losses/feature_pairs.h"
#include "models/init.h"
#include "models/model.h"
#include "runtime/status.h"
#include "student_worker/teachers.h"

namespace polystill::student_worker {
namespace {

std::string NamesOf(const std::map<std::string, int64_t>& features) {
  std::string names;
  for (const auto& [name, width] : features) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
  return names.empty() ? "no features" : names;
}

}  // namespace

absl::StatusOr<checkpoint::NamedTensors> MakeProjections(
    const v1::WorkerOrder::Assignment& assignment, const std::map<std::string, int64_t>& student,
    const std::function<int64_t(const LabelKind&)>& teacher_width) {
  const v1::Job& job = assignment.job();
  models::ParameterSpecs specs;
  for (int i = 0; i < job.losses_size(); ++i) {
    const std::vector<LabelKind> kinds = LabelKindsOf(job.losses(i), assignment);
    for (const losses::FeaturePair& pair : losses::FeaturePairsOf(job.losses(i), i)) {
      const auto own = student.find(pair.student);
      if (own == student.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("student.losses.", i, ": the student has no '", pair.student, "'; it has ", NamesOf(student)));
      }
      const double spread = 1 / std::sqrt(static_cast<double>(own->second));  // as models::AddLinear's
      const LabelKind kind{kinds[0].teacher, kinds[0].codec, pair.teacher};
      specs.push_back({pair.projection, {teacher_width(kind), own->second}, 0, spread});
    }
  }
  return models::DrawParameters(specs, job.seed(), models::ScalarTypeOf(job.dtype()));
}

absl::Status RestoreProjections(const checkpoint::NamedTensors& values, const checkpoint::NamedTensors& projections) {
  if (values.size() != projections.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("holds ", values.size(), " projections, the job has ", projections.size()));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const auto& [name, value] = values[i];
    const at::Tensor& own = projections[i].second;
    if (name == projections[i].first && value.sizes() == own.sizes() && value.scalar_type() == own.scalar_type()) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is not projection '", projections[i].first,
                                                   "', or of another shape or type"));
  }
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < values.size(); ++i) projections[i].second.copy_(values[i].second);
  return absl::OkStatus();
}

}  // namespace polystill::student_worker
