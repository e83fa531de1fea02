#include "soft_labels/pieces.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/dense.h"

namespace polystill::soft_labels {

std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs, int64_t max_records,
                             int64_t classes) {
  call->labels.classes = classes;
  call->labels.logits.resize(inputs.size() * classes);
  std::vector<Piece> pieces;
  int64_t bytes = 0;
  for (size_t row = 0; row < inputs.size(); ++row) {
    const int64_t size = inputs[row].ByteSizeLong();
    const bool full = pieces.empty() || static_cast<int64_t>(pieces.back().inputs.size()) == max_records ||
                      bytes + size > kMaxPieceBytes;
    if (full) {
      pieces.push_back({call, static_cast<int64_t>(row), {}});
      bytes = 0;
    }
    bytes += size;
    pieces.back().inputs.push_back(std::move(inputs[row]));
  }
  call->pieces_left = pieces.size();
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
  if (reply.labels_size() != 1) {
    return absl::DataLossError(absl::StrCat(records, ": asked for 1 output, got ", reply.labels_size()));
  }
  const v1::SoftLabels& labels = reply.labels(0);
  if (labels.codec() != call.spec.codec()) {
    return absl::DataLossError(absl::StrCat(records, ": asked for codec ", v1::Codec_Name(call.spec.codec()), ", got ",
                                            v1::Codec_Name(labels.codec())));
  }
  const auto decoded = DecodeDense(labels, piece.inputs.size(), call.labels.classes,
                                   [&](int64_t row) { return absl::StrCat("record '", piece.inputs[row].id(), "'"); });
  if (!decoded.ok()) return Annotate(absl::DataLossError(decoded.status().message()), records);
  std::copy(decoded->begin(), decoded->end(), call.labels.logits.begin() + piece.first_row * call.labels.classes);
  call.labels.bytes += labels.dense().data().size();
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
