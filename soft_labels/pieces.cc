#include "soft_labels/pieces.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/decode.h"

namespace polystill::soft_labels {

namespace {

std::vector<RecordSize> SizesOf(const Piece& piece, const Output& output) {
  std::vector<RecordSize> sizes;
  for (const v1::LabelInput& input : piece.inputs) sizes.push_back(SizeOf(piece.call->spec, output, input));
  return sizes;
}

// Adds what each input was answered, as it came, to its entry of `all`.
absl::Status KeepEncoded(const v1::SoftLabels& labels, const Piece& piece, const Output& output,
                         std::vector<std::vector<v1::SoftLabels>>* all) {
  auto parts = Cut(labels, SizesOf(piece, output));
  if (!parts.ok()) return absl::DataLossError(parts.status().message());
  all->resize(parts->size());
  for (size_t i = 0; i < parts->size(); ++i) (*all)[i].push_back(std::move((*parts)[i]));
  return absl::OkStatus();
}

// The labels of one output.
absl::StatusOr<Array> DecodeOutput(const v1::SoftLabels& labels, const Piece& piece, const Output& output) {
  auto decoded = Decode(labels, piece.call->spec, output, SizesOf(piece, output),
                        [&](int64_t row) { return NameOfRow(output, piece.inputs, row); });
  if (!decoded.ok()) return absl::DataLossError(decoded.status().message());
  return decoded;
}

}  // namespace

LabelClient::Labels Call::TakeLabels() {
  LabelClient::Labels labels;
  labels.bytes = bytes;
  labels.outputs = std::move(answers[0]);
  for (auto& piece : encoded) std::move(piece.begin(), piece.end(), std::back_inserter(labels.encoded));
  for (size_t piece = 1; piece < answers.size(); ++piece) {
    for (size_t i = 0; i < outputs.size(); ++i) Append(std::move(answers[piece][i]), &labels.outputs[i]);
  }
  return labels;
}

std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs,
                             int64_t max_records) {
  std::vector<Piece> pieces;
  int64_t asked_bytes = 0;
  int64_t answer_bytes = 0;
  for (v1::LabelInput& input : inputs) {
    const auto asks = static_cast<int64_t>(input.ByteSizeLong());
    const int64_t gets = BytesOf(call->spec, call->outputs, input);
    const bool full = pieces.empty() || static_cast<int64_t>(pieces.back().inputs.size()) == max_records ||
                      asked_bytes + asks > kMaxPieceBytes || answer_bytes + gets > kMaxPieceBytes;
    if (full) {
      pieces.push_back({call, pieces.size(), {}});
      asked_bytes = answer_bytes = 0;
    }
    asked_bytes += asks;
    answer_bytes += gets;
    pieces.back().inputs.push_back(std::move(input));
  }
  call->pieces_left = static_cast<int64_t>(pieces.size());
  call->answers.resize(pieces.size());
  call->encoded.resize(pieces.size());
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
  Call& call = *piece.call;
  if (static_cast<size_t>(reply.labels_size()) != call.outputs.size()) {
    return absl::DataLossError(absl::StrCat(records, ": asked for ", call.outputs.size(),
                                            " outputs, got the labels of ", reply.labels_size()));
  }
  std::vector<Array> answer;
  for (int i = 0; i < reply.labels_size(); ++i) {
    const v1::SoftLabels& labels = reply.labels(i);
    absl::StatusOr<Array> array = DecodeOutput(labels, piece, call.outputs[i]);
    if (!array.ok()) return Annotate(array.status(), records);
    answer.push_back(*std::move(array));
    if (call.keeps_encoded) {
      RETURN_IF_ERROR(Annotate(KeepEncoded(labels, piece, call.outputs[i], &call.encoded[piece.place]), records));
    }
    call.bytes += static_cast<int64_t>(labels.dense().data().size() + labels.packed().size());
  }
  call.answers[piece.place] = std::move(answer);
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
