#include "teacher_server/labeller.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "teacher_server/row_encoder.h"

namespace polystill::teacher_server {
namespace {

// The rows of one request, which begin at `first` of each output's numbers and are behind it afterwards.
absl::StatusOr<Answer> EncodeAnswer(const v1::DescribeReply& teacher, const v1::LabelRequest& request,
                                    const soft_labels::Outputs& outputs, const std::vector<at::Tensor>& numbers,
                                    std::vector<int64_t>* first) {
  Answer answer;
  absl::Status status;
  for (size_t k = 0; k < outputs.size(); ++k) {
    int64_t rows = 0;
    for (const v1::LabelInput& input : request.inputs()) rows += outputs[k].RowsOf(input);
    auto labels = EncodeRows(teacher, request, outputs[k], numbers[k].narrow(0, (*first)[k], rows));
    (*first)[k] += rows;
    status.Update(labels.status());
    if (labels.ok()) answer.push_back(*std::move(labels));
  }
  if (!status.ok()) return status;
  return answer;
}

// Every place of `ids` unless some are named.
std::vector<int32_t> PositionsOf(const v1::LabelInput& input, const std::vector<int32_t>& ids) {
  if (!input.positions().empty()) return {input.positions().begin(), input.positions().end()};
  std::vector<int32_t> places(ids.size());
  std::iota(places.begin(), places.end(), 0);
  return places;
}

}  // namespace

Labeller::Labeller(Teacher teacher, v1::DescribeReply description, int64_t memo_bytes)
    : teacher_(std::move(teacher)), description_(std::move(description)), memo_(teacher_.encode, memo_bytes) {}

Batcher::Answers Labeller::Label(const Requests& requests) {
  std::map<std::pair<std::vector<std::string>, bool>, std::vector<size_t>> alike;
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto& names = requests[i]->spec().outputs();
    const bool head_input = requests[i]->spec().codec() == v1::CODEC_HIDDEN_HEAD;
    alike[{{names.begin(), names.end()}, head_input}].push_back(i);
  }
  Batcher::Answers answers(requests.size(), absl::InternalError("was not labelled"));
  for (const auto& [wanted, places] : alike) {
    Requests some;
    for (const size_t i : places) some.push_back(requests[i]);
    const auto outputs = soft_labels::OutputsOf(some[0]->spec(), description_);
    Batcher::Answers of_some =
        outputs.ok() ? LabelAlike(*outputs, wanted.second, some) : Batcher::Answers(some.size(), outputs.status());
    for (size_t i = 0; i < places.size(); ++i) answers[places[i]] = std::move(of_some[i]);
  }
  return answers;
}

Question Labeller::QuestionOf(const soft_labels::Outputs& outputs, bool head_input, const Requests& requests) {
  Question question;
  bool judges_tokens = false;
  for (const soft_labels::Output& output : outputs) {
    const bool logits = output.name == soft_labels::kLogits;
    question.outputs.push_back(logits && head_input ? kHeadInput : output.name);
    judges_tokens |= output.of_tokens && logits;
  }
  for (const v1::LabelRequest* request : requests) {
    for (const v1::LabelInput& input : request->inputs()) {
      if (input.has_text()) {
        question.ids.push_back(memo_.Ids(input.text()));
      } else {
        question.ids.emplace_back(input.ids().ids().begin(), input.ids().ids().end());
      }
      if (judges_tokens) question.positions.push_back(PositionsOf(input, question.ids.back()));
    }
  }
  return question;
}

Batcher::Answers Labeller::LabelAlike(const soft_labels::Outputs& outputs, bool head_input, const Requests& requests) {
  const auto numbers = teacher_.backend->Forward(QuestionOf(outputs, head_input, requests));
  Batcher::Answers answers;
  std::vector<int64_t> first(outputs.size(), 0);
  for (const v1::LabelRequest* request : requests) {
    if (numbers.ok()) {
      answers.push_back(EncodeAnswer(description_, *request, outputs, *numbers, &first));
    } else {
      answers.push_back(
          Annotate(numbers.status(), absl::StrCat("record '", request->inputs(0).id(), "' and what came with it")));
    }
  }
  return answers;
}

}  // namespace polystill::teacher_server
