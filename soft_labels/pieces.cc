#include "soft_labels/pieces.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runtime/status.h"
#include "soft_labels/compression.h"
#include "soft_labels/decode.h"

namespace polystill::soft_labels {

namespace {

std::vector<RecordSize> SizesOf(const Piece& piece, const Output& output) {
  std::vector<RecordSize> sizes;
  for (const v1::LabelInput& input : piece.inputs) sizes.push_back(SizeOf(piece.call->spec, output, input));
  return sizes;
}

// Of its answer, not compressed, at most.
int64_t AnswerBytesOf(const Piece& piece) {
  int64_t bytes = 0;
  for (const v1::LabelInput& input : piece.inputs) bytes += BytesOf(piece.call->spec, piece.call->outputs, input);
  return bytes;
}

// Adds what each input was answered, as it came, to its entry of `all`.
absl::Status KeepEncoded(const v1::SoftLabels& labels, const std::vector<RecordSize>& sizes,
                         std::vector<std::vector<v1::SoftLabels>>* all) {
  ASSIGN_OR_RETURN(std::vector<v1::SoftLabels> parts, Cut(labels, sizes));
  all->resize(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) (*all)[i].push_back(std::move(parts[i]));
  return absl::OkStatus();
}

// Adds the labels of one output, whose SoftLabels.dense.data is in `numbers`, to the answer.
absl::Status ReadOutput(const v1::SoftLabels& labels, const ByteChunks& numbers, const Output& output,
                        const Piece& piece, PieceAnswer* answer) {
  const Call& call = *piece.call;
  answer->bytes += static_cast<int64_t>(BytesOf(numbers) + labels.packed().size());
  const std::vector<RecordSize> sizes = SizesOf(piece, output);
  const auto row_name = [&](int64_t row) { return NameOfRow(output, piece.inputs, row); };
  Array& array = answer->outputs.emplace_back();
  if (!call.keeps_encoded && labels.uncompressed_bytes() == 0) {
    ASSIGN_OR_RETURN(array, Decode(labels, numbers, call.spec, output, sizes, row_name));
    return absl::OkStatus();
  }
  v1::SoftLabels whole = labels;
  for (const std::string_view chunk : numbers) whole.mutable_dense()->mutable_data()->append(chunk);
  RETURN_IF_ERROR(Decompress(AnswerBytesOf(piece), &whole));
  ASSIGN_OR_RETURN(array, Decode(whole, call.spec, output, sizes, row_name));
  return call.keeps_encoded ? KeepEncoded(whole, sizes, &answer->encoded) : absl::OkStatus();
}

// Rows [first, first + count) of an array of `rows` rows.
Array RowsOf(const Array& all, int64_t rows, int64_t first, int64_t count) {
  Array part{.numbers = {}, .width = all.width};
  int64_t ids_first = 0, ids_count = 0, numbers_first = first * all.width, numbers_count = count * all.width;
  if (all.offsets.empty()) {
    const int64_t ids_per_row = rows == 0 ? 0 : static_cast<int64_t>(all.ids.size()) / rows;
    ids_first = first * ids_per_row;
    ids_count = count * ids_per_row;
  } else {
    for (int64_t row = first; row <= first + count; ++row) {
      part.offsets.push_back(all.offsets[row] - all.offsets[first]);
    }
    const bool of_numbers = all.ids.empty() && all.width == 0;  // scores
    (of_numbers ? numbers_first : ids_first) = all.offsets[first];
    (of_numbers ? numbers_count : ids_count) = part.offsets.back();
  }
  const auto cut = [](const auto& from, int64_t begin, int64_t size, auto* to) {
    to->assign(from.begin() + begin, from.begin() + begin + size);
  };
  cut(all.numbers, numbers_first, numbers_count, &part.numbers);
  cut(all.ids, ids_first, ids_count, &part.ids);
  if (!all.counts.empty()) cut(all.counts, ids_first, ids_count, &part.counts);
  return part;
}

// One output's answers of pieces that are not consecutive, put together in the order of the inputs.
Array InOrder(const Call& call, size_t output) {
  struct Place {
    size_t piece;
    int64_t first, rows;
  };
  std::map<size_t, Place> inputs;
  std::vector<int64_t> rows_of_pieces;
  for (size_t piece = 0; piece < call.places.size(); ++piece) {
    int64_t first = 0;
    for (const size_t input : call.places[piece]) {
      inputs[input] = {piece, first, call.rows[output][input]};
      first += call.rows[output][input];
    }
    rows_of_pieces.push_back(first);
  }
  Array all;
  for (const auto& [input, place] : inputs) {
    if (place.rows == 0) continue;
    Append(RowsOf(call.answers[place.piece][output], rows_of_pieces[place.piece], place.first, place.rows), &all);
  }
  if (inputs.empty() || (all.numbers.empty() && all.ids.empty() && all.offsets.empty())) return call.answers[0][output];
  return all;
}

// The same of what was kept of each input; `encoded`: piece after piece.
std::vector<std::vector<v1::SoftLabels>> InOrder(const std::vector<std::vector<size_t>>& places,
                                                 std::vector<std::vector<v1::SoftLabels>> encoded) {
  std::vector<std::vector<v1::SoftLabels>> ordered(encoded.size());
  size_t next = 0;
  for (const auto& of_piece : places) {
    for (const size_t input : of_piece) ordered[input] = std::move(encoded[next++]);
  }
  return ordered;
}

}  // namespace

void Call::Take(size_t place, PieceAnswer answer) {
  answers[place] = std::move(answer.outputs);
  encoded[place] = std::move(answer.encoded);
  bytes += answer.bytes;
}

LabelClient::Labels Call::TakeLabels() {
  LabelClient::Labels labels;
  labels.bytes = bytes;
  for (auto& piece : encoded) std::move(piece.begin(), piece.end(), std::back_inserter(labels.encoded));
  if (!places.empty()) {
    for (size_t i = 0; i < outputs.size(); ++i) labels.outputs.push_back(InOrder(*this, i));
    answers.clear();
    if (keeps_encoded) labels.encoded = InOrder(places, std::move(labels.encoded));
    return labels;
  }
  labels.outputs = std::move(answers[0]);
  for (size_t piece = 1; piece < answers.size(); ++piece) {
    for (size_t i = 0; i < outputs.size(); ++i) Append(std::move(answers[piece][i]), &labels.outputs[i]);
  }
  return labels;
}

int64_t TokensOf(const v1::LabelInput& input, int64_t max_length) {
  if (!input.has_text()) return std::max(1, input.ids().ids_size());
  const auto tokens = static_cast<int64_t>(input.text().size() + 3) / 4;
  return std::clamp<int64_t>(tokens, 1, std::max<int64_t>(max_length, 1));
}

std::vector<Piece> SplitCall(const std::shared_ptr<Call>& call, std::vector<v1::LabelInput> inputs, int64_t max_records,
                             const std::vector<int>& homes) {
  // The piece of each home that is being filled.
  struct Open {
    size_t piece;
    int64_t asked_bytes, answer_bytes;
  };
  std::map<int, Open> open;
  std::vector<Piece> pieces;
  if (!homes.empty()) call->rows.resize(call->outputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    v1::LabelInput& input = inputs[i];
    const int home = homes.empty() ? -1 : homes[i];
    const auto asks = static_cast<int64_t>(input.ByteSizeLong());
    const int64_t gets = BytesOf(call->spec, call->outputs, input);
    const auto found = open.find(home);
    const bool full =
        found == open.end() || static_cast<int64_t>(pieces[found->second.piece].inputs.size()) == max_records ||
        found->second.asked_bytes + asks > kMaxPieceBytes || found->second.answer_bytes + gets > kMaxPieceBytes;
    if (full) {
      open[home] = {pieces.size(), 0, 0};
      pieces.push_back({call, pieces.size(), {}, home});
    }
    Open& filling = open[home];
    filling.asked_bytes += asks;
    filling.answer_bytes += gets;
    if (!homes.empty()) {
      call->places.resize(pieces.size());
      call->places[filling.piece].push_back(i);
      for (size_t k = 0; k < call->outputs.size(); ++k) call->rows[k].push_back(call->outputs[k].RowsOf(input));
    }
    pieces[filling.piece].inputs.push_back(std::move(input));
  }
  call->pieces_left = static_cast<int64_t>(pieces.size());
  call->answers.resize(pieces.size());
  call->encoded.resize(pieces.size());
  return pieces;
}

absl::StatusOr<PieceAnswer> ReadAnswer(const StreamReply& message, const Piece& piece) {
  const v1::LabelReply& reply = message.message.reply();
  const Call& call = *piece.call;
  const std::string records =
      absl::StrCat("labels of records '", piece.inputs.front().id(), "' to '", piece.inputs.back().id(), "'");
  if (reply.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(reply.code()), absl::StrCat(records, ": ", reply.message()));
  }
  if (reply.teacher_digest() != call.spec.teacher_digest()) {
    return absl::FailedPreconditionError(absl::StrCat(records, ": came from a teacher with digest ",
                                                      reply.teacher_digest(), ", expected ",
                                                      call.spec.teacher_digest()));
  }
  if (static_cast<size_t>(reply.labels_size()) != call.outputs.size()) {
    return absl::DataLossError(absl::StrCat(records, ": asked for ", call.outputs.size(),
                                            " outputs, got the labels of ", reply.labels_size()));
  }
  PieceAnswer answer;
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    const absl::Status status =
        ReadOutput(reply.labels(static_cast<int>(i)), message.numbers[i], call.outputs[i], piece, &answer);
    if (!status.ok()) return absl::DataLossError(absl::StrCat(records, ": ", status.message()));
  }
  return answer;
}

}  // namespace polystill::soft_labels
