#include "teacher_server/answer_parts.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/status.h"
#include "soft_labels/decode.h"
#include "soft_labels/label_key.h"
#include "soft_labels/outputs.h"

namespace polystill::teacher_server {
namespace {

using soft_labels::OutputsOf;

std::vector<std::vector<std::string>> KeysOf(const v1::DescribeReply& teacher, const v1::LabelRequest& request) {
  std::vector<std::vector<std::string>> keys(request.inputs_size());
  const auto outputs = OutputsOf(request.spec(), teacher);
  if (!outputs.ok()) return keys;  // not of a valid request
  for (const soft_labels::Output& output : *outputs) {
    const soft_labels::LabelKeys of_output(teacher, request.spec(), output);
    for (int i = 0; i < request.inputs_size(); ++i) keys[i].push_back(of_output.KeyOf(request.inputs(i)));
  }
  return keys;
}

absl::StatusOr<LabelParts> Cut(const v1::DescribeReply& teacher, const v1::LabelRequest& request,
                               const Answer& answer) {
  ASSIGN_OR_RETURN(const soft_labels::Outputs outputs, OutputsOf(request.spec(), teacher));
  LabelParts parts(request.inputs_size());
  for (size_t k = 0; k < outputs.size(); ++k) {
    std::vector<soft_labels::RecordSize> sizes;
    for (const v1::LabelInput& input : request.inputs()) {
      sizes.push_back(soft_labels::SizeOf(request.spec(), outputs[k], input));
    }
    ASSIGN_OR_RETURN(const std::vector<v1::SoftLabels> labels, soft_labels::Cut(answer[k], sizes));
    for (size_t i = 0; i < labels.size(); ++i) {
      parts[i].push_back(std::make_shared<const std::string>(labels[i].SerializeAsString()));
    }
  }
  return parts;
}

absl::StatusOr<Answer> Join(const LabelParts& parts) {
  Answer answer(parts.empty() ? 0 : parts[0].size());
  for (const auto& of_record : parts) {
    for (size_t k = 0; k < of_record.size(); ++k) {
      v1::SoftLabels labels;
      if (!labels.ParseFromString(*of_record[k])) return absl::DataLossError("a label of the cache is no label");
      RETURN_IF_ERROR(soft_labels::Append(labels, &answer[k]));
    }
  }
  return answer;
}

}  // namespace

AnswerParts AnswerPartsOf(const v1::DescribeReply& teacher) {
  return {
      .keys = [teacher](const v1::LabelRequest& request) { return KeysOf(teacher, request); },
      .cut = [teacher](const v1::LabelRequest& request, const Answer& answer) { return Cut(teacher, request, answer); },
      .join = [](const v1::LabelRequest&, const LabelParts& parts) { return Join(parts); }};
}

}  // namespace polystill::teacher_server
