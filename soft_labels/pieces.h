#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"

namespace polystill::soft_labels {

// One LabelClient::Label under way: its answers meet here, in the order of its inputs.
struct Call {
  v1::LabelSpec spec;
  // Those of the spec.
  Outputs outputs;
  LabelClient::Callback callback;
  LabelClient::Labels labels;
  int64_t pieces_left = 0;
};

// Consecutive inputs of a call that travel in one request.
struct Piece {
  std::shared_ptr<Call> call;
  // Where its answer begins, for each output: a place among the numbers of the call.
  std::vector<int64_t> first;
  std::vector<v1::LabelInput> inputs;
};

// Largest request, and answer to it, in bytes, unless those of one input alone are larger: well below the limit of a
// message.
inline constexpr int64_t kMaxPieceBytes = 4 << 20;

// Cuts `inputs` into pieces of at most `max_records` and about kMaxPieceBytes, and makes room for their answers.
std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs,
                             int64_t max_records);

// Checks a reply (digest of the teacher, number of outputs, codec, shapes, every number finite) and puts its numbers
// into the call. An error names the record that is to blame, or the first and last of the piece when all are.
absl::Status TakeReply(const v1::LabelReply& reply, const v1::DescribeReply& teacher, const Piece& piece);

}  // namespace polystill::soft_labels
