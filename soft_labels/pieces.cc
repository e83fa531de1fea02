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

// Of its answer, not compressed, at most.
int64_t BytesOf(const Piece& piece) {
  int64_t bytes = 0;
  for (const v1::LabelInput& input : piece.inputs) bytes += BytesOf(piece.call->spec, piece.call->outputs, input);
  return bytes;
}

}  // namespace

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
    v1::SoftLabels opened;
    const bool compressed = reply.labels(i).uncompressed_bytes() != 0;
    if (compressed) {
      opened = reply.labels(i);
      const absl::Status status = Decompress(BytesOf(piece), &opened);
      if (!status.ok()) return absl::DataLossError(absl::StrCat(records, ": ", status.message()));
    }
    const v1::SoftLabels& labels = compressed ? opened : reply.labels(i);
    absl::StatusOr<Array> array = DecodeOutput(labels, piece, call.outputs[i]);
    if (!array.ok()) return Annotate(array.status(), records);
    answer.push_back(*std::move(array));
    if (call.keeps_encoded) {
      RETURN_IF_ERROR(Annotate(KeepEncoded(labels, piece, call.outputs[i], &call.encoded[piece.place]), records));
    }
    call.bytes += static_cast<int64_t>(reply.labels(i).dense().data().size() + reply.labels(i).packed().size());
  }
  call.answers[piece.place] = std::move(answer);
  return absl::OkStatus();
}

}  // namespace polystill::soft_labels
