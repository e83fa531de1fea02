#include "soft_labels/pieces.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/dense.h"

namespace polystill::soft_labels {

namespace {

// Where the next piece's answer begins: behind what has room already.
std::vector<int64_t> EndsOf(const LabelClient::Labels& labels) {
  std::vector<int64_t> ends;
  for (const LabelClient::Array& array : labels.outputs) ends.push_back(static_cast<int64_t>(array.numbers.size()));
  return ends;
}

// The labels of one output into their place.
absl::Status TakeOutput(const v1::SoftLabels& labels, const Piece& piece, size_t i) {
  Call& call = *piece.call;
  const Output& output = call.outputs[i];
  if (labels.codec() != call.spec.codec()) {
    return absl::DataLossError(
        absl::StrCat("asked for codec ", v1::Codec_Name(call.spec.codec()), ", got ", v1::Codec_Name(labels.codec())));
  }
  int64_t rows = 0;
  for (const v1::LabelInput& input : piece.inputs) rows += output.RowsOf(input);
  const auto decoded =
      DecodeDense(labels, rows, output.width, [&](int64_t row) { return NameOfRow(output, piece.inputs, row); });
  if (!decoded.ok()) return absl::DataLossError(decoded.status().message());
  std::copy(decoded->begin(), decoded->end(), call.labels.outputs[i].numbers.begin() + piece.first[i]);
  call.labels.bytes += static_cast<int64_t>(labels.dense().data().size());
  return absl::OkStatus();
}

}  // namespace

std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs,
                             int64_t max_records) {
  const int64_t bytes_per_number = BytesPerNumber(call->spec.codec());
  LabelClient::Labels& labels = call->labels;
  for (const Output& output : call->outputs) labels.outputs.push_back({{}, output.width});
  std::vector<Piece> pieces;
  int64_t asked_bytes = 0;
  int64_t answer_bytes = 0;
  for (v1::LabelInput& input : inputs) {
    const auto asks = static_cast<int64_t>(input.ByteSizeLong());
    const int64_t gets = NumbersOf(call->outputs, input) * bytes_per_number;
    const bool full = pieces.empty() || static_cast<int64_t>(pieces.back().inputs.size()) == max_records ||
                      asked_bytes + asks > kMaxPieceBytes || answer_bytes + gets > kMaxPieceBytes;
    if (full) {
      pieces.push_back({call, EndsOf(labels), {}});
      asked_bytes = answer_bytes = 0;
    }
    asked_bytes += asks;
    answer_bytes += gets;
    for (size_t i = 0; i < call->outputs.size(); ++i) {
      auto& numbers = labels.outputs[i].numbers;
      numbers.resize(numbers.size() + call->outputs[i].RowsOf(input) * call->outputs[i].width);
    }
    pieces.back().inputs.push_back(std::move(input));
  }
  call->pieces_left = static_cast<int64_t>(pieces.size());
  return pieces;
}

absl::Status TakeReply(const v1::LabelReply& reply, const v1::DescribeReply& teacher, const Piece& piece) {
  const std::string records =
      absl::StrCat("labels of records '", piece.inputs.front().id(), "' to '", piece.inputs.back().id(), "'");
  if (reply.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(reply.code()), absl::StrCat(records, ": ", reply.message()));
  }
  if (reply.teacher_digest() != teacher.digest()) {
    return absl::FailedPreconditionError(absl::StrCat(records, ": came from a teacher with digest ",
                                                      reply.teacher_digest(), ", expected ", teacher.digest()));
  }
  const Call& call = *piece.call;
  if (static_cast<size_t>(reply.labels_size()) != call.outputs.size()) {
    return absl::DataLossError(absl::StrCat(records, ": asked for ", call.outputs.size(),
                                            " outputs, got the labels of ", reply.labels_size()));
  }
  for (int i = 0; i < reply.labels_size(); ++i) {
    RETURN_IF_ERROR(Annotate(TakeOutput(reply.labels(i), piece, i), records));
  }
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
