#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/client.h"

namespace polystill::soft_labels {

// One LabelClient::Label under way: its answers meet here, in the order of its inputs.
struct Call {
  v1::LabelSpec spec;
  LabelClient::Callback callback;
  LabelClient::Labels labels;
  int64_t pieces_left = 0;
};

// Consecutive inputs of a call that travel in one request.
struct Piece {
  std::shared_ptr<Call> call;
  int64_t first_row = 0;
  std::vector<v1::LabelInput> inputs;
};

// Largest request in bytes, unless one input alone is larger: well below the limit of a message.
inline constexpr int64_t kMaxPieceBytes = 4 << 20;

// Cuts `inputs` into pieces of at most `max_records` and about kMaxPieceBytes, and makes room for their answers.
std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs, int64_t max_records,
                             int64_t classes);

// Checks a reply (digest of the teacher, codec, shape, every value finite) and puts its logits into the call. An error
// names the record that is to blame, or the first and last of the piece when all are.
absl::Status TakeReply(const v1::LabelReply& reply, const v1::DescribeReply& teacher, const Piece& piece);

}  // namespace polystill::soft_labels
