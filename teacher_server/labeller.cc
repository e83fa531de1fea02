#include "teacher_server/labeller.h"

#include <cmath>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/dense.h"

namespace polystill::teacher_server {
namespace {

absl::StatusOr<v1::SoftLabels> EncodeRows(const v1::LabelRequest& request, std::span<const float> logits,
                                          int64_t classes) {
  auto labels =
      soft_labels::EncodeDense(request.spec().codec(), logits, request.inputs_size(), classes,
                               [&](int64_t row) { return absl::StrCat("record '", request.inputs(row).id(), "'"); });
  if (labels.ok()) return labels;
  for (const float logit : logits) {
    if (!std::isfinite(logit)) return absl::InternalError(labels.status().message());  // the teacher's fault
  }
  return absl::OutOfRangeError(labels.status().message());
}

}  // namespace

Labeller::Labeller(Teacher teacher, int64_t memo_bytes)
    : teacher_(std::move(teacher)), memo_(teacher_.encode, memo_bytes) {}

std::vector<absl::StatusOr<v1::SoftLabels>> Labeller::Label(const std::vector<const v1::LabelRequest*>& requests) {
  std::vector<std::vector<int32_t>> rows;
  for (const v1::LabelRequest* request : requests) {
    for (const v1::LabelInput& input : request->inputs()) {
      if (input.has_text()) {
        rows.push_back(memo_.Ids(input.text()));
      } else {
        rows.emplace_back(input.ids().ids().begin(), input.ids().ids().end());
      }
    }
  }
  const auto logits = teacher_.backend->Forward(rows);
  std::vector<absl::StatusOr<v1::SoftLabels>> answers;
  const int64_t classes = teacher_.signature.labels_size();
  int64_t first = 0;
  for (const v1::LabelRequest* request : requests) {
    const int64_t values = request->inputs_size() * classes;
    if (logits.ok()) {
      answers.push_back(EncodeRows(*request, std::span(*logits).subspan(first, values), classes));
    } else {
      answers.push_back(
          Annotate(logits.status(), absl::StrCat("record '", request->inputs(0).id(), "' and what came with it")));
    }
    first += values;
  }
  return answers;
}

}  // namespace polystill::teacher_server
