#include "teacher_server/validation.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "soft_labels/client.h"
#include "soft_labels/decode.h"
#include "soft_labels/outputs.h"

namespace polystill::teacher_server {
namespace {

std::string NameOf(const v1::LabelRequest& request, int i) {
  const std::string& id = request.inputs(i).id();
  return id.empty() ? absl::StrCat("input ", i) : absl::StrCat("record '", Excerpt(id), "'");
}

// Room in a message for what an answer holds beside its numbers, for each output.
constexpr int64_t kOverheadBytes = 4'096;

// Tokens of a text beside those of its bytes: [CLS] and [SEP], or SentencePiece's mark of its beginning.
constexpr int64_t kTokensAround = 2;

absl::Status CheckSpec(const v1::LabelSpec& spec, const v1::DescribeReply& teacher) {
  if (!spec.teacher_digest().empty() && spec.teacher_digest() != teacher.digest()) {
    return absl::FailedPreconditionError(absl::StrCat("this server's teacher '", teacher.name(), "' has the digest ",
                                                      teacher.digest(), ", the request asks for ",
                                                      Excerpt(spec.teacher_digest())));
  }
  return absl::OkStatus();
}

absl::Status CheckText(const std::string& text) {
  if (static_cast<int64_t>(text.size()) <= soft_labels::kMaxTextBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("text has ", text.size(), " bytes, more than ", soft_labels::kMaxTextBytes, "; cut it"));
}

absl::Status CheckIds(const v1::TokenIds& ids, const v1::Signature& signature) {
  if (ids.ids().empty()) return absl::InvalidArgumentError("has no token ids");
  if (ids.ids_size() > signature.max_length()) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", ids.ids_size(), " token ids, more than max_length ", signature.max_length()));
  }
  for (const int32_t id : ids.ids()) {
    if (id >= 0 && id < signature.vocab_size()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("token id ", id, " is out of range; ids are in [0, ", signature.vocab_size(), ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckPositions(const v1::LabelInput& input) {
  int32_t before = -1;
  for (const int32_t place : input.positions()) {
    if (place < 0 || place >= input.ids().ids_size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("position ", place, " is out of range; its token ids are at [0, ", input.ids().ids_size(), ")"));
    }
    if (place <= before) {
      return absl::InvalidArgumentError(
          absl::StrCat("position ", place, " comes after ", before, "; write positions in ascending order, each once"));
    }
    before = place;
  }
  return absl::OkStatus();
}

absl::Status CheckInput(const v1::LabelInput& input, const soft_labels::Outputs& outputs,
                        const v1::Signature& signature) {
  if (static_cast<int64_t>(input.id().size()) > kMaxIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("id has more than ", kMaxIdBytes, " bytes"));
  }
  const bool takes_text = signature.input() == v1::Signature::INPUT_TEXT;
  if (input.has_text() && !takes_text) {
    return absl::InvalidArgumentError(
        "has text, but this teacher reads token ids; make an ids column with polystill-tokenize");
  }
  if (input.input_case() == v1::LabelInput::INPUT_NOT_SET) {
    return absl::InvalidArgumentError(takes_text ? "has neither text nor token ids; this teacher reads text, or ids of "
                                                   "its own tokeniser"
                                                 : "has no token ids; this teacher reads ids");
  }
  RETURN_IF_ERROR(input.has_text() ? CheckText(input.text()) : CheckIds(input.ids(), signature));
  bool judges_tokens = false;
  for (const soft_labels::Output& output : outputs) {
    if (output.of_tokens && input.has_text()) {
      return absl::InvalidArgumentError(
          absl::StrCat("has text, but '", output.name, "' is of tokens; send token ids of the teacher's tokeniser"));
    }
    judges_tokens |= output.of_tokens && output.name == soft_labels::kLogits;
  }
  if (!input.positions().empty() && !judges_tokens) {
    return absl::InvalidArgumentError("has positions, which go with logits of tokens only; leave them out");
  }
  return CheckPositions(input);
}

// `logits`: null when they are not asked for.
absl::Status CheckScoreIds(const v1::LabelInput& input, v1::Codec codec, const soft_labels::Output* logits) {
  if (codec != v1::CODEC_SCORES || logits == nullptr) {
    if (input.score_ids().empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("has score_ids, which go with logits by codec scores only; leave them out");
  }
  const int64_t rows = logits->RowsOf(input);
  if (input.score_ids().empty() || rows == 0 || input.score_ids_size() % rows != 0) {
    return absl::InvalidArgumentError(absl::StrCat("has ", input.score_ids_size(), " score_ids for ", rows,
                                                   " rows of logits; name as many for each row, and at least one"));
  }
  for (const int32_t id : input.score_ids()) {
    if (id >= 0 && id < logits->width) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("score_id ", id, " is out of range; logits are [0, ", logits->width, ")"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRequest(const v1::LabelRequest& request, const v1::DescribeReply& teacher) {
  RETURN_IF_ERROR(CheckProtocolVersion(request.protocol_version()));
  RETURN_IF_ERROR(CheckSpec(request.spec(), teacher));
  ASSIGN_OR_RETURN(const soft_labels::Outputs outputs, soft_labels::OutputsOf(request.spec(), teacher));
  RETURN_IF_ERROR(soft_labels::CheckSpec(request.spec(), outputs, teacher.signature().task()));
  const auto is_logits = [](const soft_labels::Output& output) { return output.name == soft_labels::kLogits; };
  const auto logits = std::find_if(outputs.begin(), outputs.end(), is_logits);
  if (request.timeout_ms() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("timeout_ms ", request.timeout_ms(), " is negative"));
  }
  if (!v1::Priority_IsValid(request.priority())) {
    return absl::InvalidArgumentError(absl::StrCat("priority ", static_cast<int>(request.priority()), " is unknown"));
  }
  if (request.inputs().empty() || request.inputs_size() > teacher.max_records_per_request()) {
    return absl::InvalidArgumentError(absl::StrCat("a request holds 1 to ", teacher.max_records_per_request(),
                                                   " inputs, this one ", request.inputs_size()));
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    absl::Status status = CheckInput(request.inputs(i), outputs, teacher.signature());
    if (status.ok()) {
      status = CheckScoreIds(request.inputs(i), request.spec().codec(), logits == outputs.end() ? nullptr : &*logits);
    }
    if (!status.ok()) return Annotate(status, NameOf(request, i));
  }
  return absl::OkStatus();
}

int64_t TokensAtMost(const v1::LabelRequest& request, const v1::DescribeReply& teacher) {
  int64_t tokens = 0;
  for (const v1::LabelInput& input : request.inputs()) {
    const int64_t most =
        input.has_ids() ? input.ids().ids_size() : static_cast<int64_t>(input.text().size()) + kTokensAround;
    tokens += std::min<int64_t>(most, teacher.signature().max_length());
  }
  return tokens;
}

AnswerBytes AnswerBytesOf(const v1::LabelRequest& request, const v1::DescribeReply& teacher) {
  const auto outputs = soft_labels::OutputsOf(request.spec(), teacher);
  if (!outputs.ok()) return {};
  int64_t numbers = 0;
  for (const v1::LabelInput& input : request.inputs()) numbers += soft_labels::NumbersOf(*outputs, input);
  v1::LabelSpec spec = request.spec();
  if (spec.codec() == v1::CODEC_UNSPECIFIED) spec.set_codec(v1::CODEC_DENSE_FP32);
  int64_t on_wire = 0;
  for (const v1::LabelInput& input : request.inputs()) on_wire += soft_labels::BytesOf(spec, *outputs, input);
  return {numbers * int64_t{sizeof(float)}, on_wire};
}

absl::Status CheckAnswerSize(const v1::LabelRequest& request, const v1::DescribeReply& teacher, int64_t batch_bytes) {
  const AnswerBytes bytes = AnswerBytesOf(request, teacher);
  const int64_t overhead = kOverheadBytes * std::max(1, request.spec().outputs_size());
  RETURN_IF_ERROR(soft_labels::CheckAnswerBytes(bytes.on_wire, kMaxMessageBytes - overhead));
  return soft_labels::CheckAnswerBytes(bytes.in_memory, batch_bytes);
}

absl::Status FindBadText(const v1::LabelRequest& partly_parsed) {
  for (int i = 0; i < partly_parsed.inputs_size(); ++i) {
    const v1::LabelInput& input = partly_parsed.inputs(i);
    if (!IsUtf8(input.id())) return absl::InvalidArgumentError(absl::StrCat("input ", i, ": its id is not UTF-8"));
    if (!IsUtf8(input.text())) {
      return absl::InvalidArgumentError(
          absl::StrCat(NameOf(partly_parsed, i), ": its text is not UTF-8; convert it first"));
    }
  }
  return absl::OkStatus();
}

}  // namespace polystill::teacher_server
