#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/client.h"
#include "soft_labels/outputs.h"
#include "soft_labels/reply_reader.h"

namespace polystill::soft_labels {

// What a piece of a call was answered, decoded.
struct PieceAnswer {
  // One for each output.
  std::vector<Array> outputs;
  // With Call::keeps_encoded, an entry for each input and output.
  std::vector<std::vector<v1::SoftLabels>> encoded = {};
  // Payload bytes.
  int64_t bytes = 0;
};

// One LabelClient::Label under way: its answers meet here.
struct Call {
  v1::LabelSpec spec;
  // Those of the spec.
  Outputs outputs;
  LabelClient::Callback callback;
  // What each of its pieces was answered, an array for each output; none before it was.
  std::vector<std::vector<Array>> answers;
  // Where inputs were divided among replicas: of each piece the places of its inputs in the call, ascending, and the
  // rows of each input, output by output. Else empty: the pieces are consecutive.
  std::vector<std::vector<size_t>> places;
  std::vector<std::vector<int64_t>> rows;
  // LabelClient::Options::keeps_encoded; then, for each piece, an entry for each input and output.
  bool keeps_encoded = false;
  std::vector<std::vector<std::vector<v1::SoftLabels>>> encoded = {};
  // Payload bytes of the answers.
  int64_t bytes = 0;
  int64_t pieces_left = 0;

  // Once for each piece.
  void Take(size_t place, PieceAnswer answer);
  // All answers, in the order of the inputs; once no piece is left, and once only.
  LabelClient::Labels TakeLabels();
};

// Inputs of a call that travel in one request, in its order.
struct Piece {
  std::shared_ptr<Call> call;
  // Its place among the pieces of the call.
  size_t place = 0;
  std::vector<v1::LabelInput> inputs;
  // The replica that may know the answer already; -1: none does sooner than others.
  int home = -1;
};

// What an input costs a teacher: its token ids, or about as many as its text will have (a token for every four bytes
// begun, which is the usual figure for subwords; at most `max_length`).
int64_t TokensOf(const v1::LabelInput& input, int64_t max_length);

// Largest request, and answer to it, in bytes, unless those of one input alone are larger: well below the limit of a
// message.
inline constexpr int64_t kMaxPieceBytes = 4 << 20;

// Cuts `inputs` into pieces of at most `max_records` and about kMaxPieceBytes, each of inputs of one home. `homes`: of
// each input; empty: none has one, and pieces are of consecutive inputs.
std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs, int64_t max_records,
                             const std::vector<int>& homes = {});

// Checks the reply of a message (digest of the teacher, which the spec names, number of outputs, and all that Decode
// does). An error names the record that is to blame, or the first and last of the piece when all are. Reads of the
// piece's call only what does not change: by any thread.
absl::StatusOr<PieceAnswer> ReadAnswer(const StreamReply& message, const Piece& piece);

}  // namespace polystill::soft_labels
