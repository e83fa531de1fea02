#include "teacher_server/validation.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/rpc.h"
#include "runtime/status.h"
#include "runtime/utf8.h"
#include "soft_labels/client.h"

namespace polystill::teacher_server {
namespace {

std::string NameOf(const v1::LabelRequest& request, int i) {
  const std::string& id = request.inputs(i).id();
  return id.empty() ? absl::StrCat("input ", i) : absl::StrCat("record '", Excerpt(id), "'");
}

absl::Status CheckSpec(const v1::LabelSpec& spec, const v1::DescribeReply& teacher) {
  for (const std::string& output : spec.outputs()) {
    if (output == "logits" && spec.outputs_size() == 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("spec.outputs '", Excerpt(output), "' is not known; this teacher gives 'logits'"));
  }
  if (spec.codec() != v1::CODEC_UNSPECIFIED && spec.codec() != v1::CODEC_DENSE_FP32 &&
      spec.codec() != v1::CODEC_DENSE_FP16) {
    return absl::InvalidArgumentError(absl::StrCat("spec.codec ", static_cast<int>(spec.codec()),
                                                   " is not known; known are dense_fp32 and dense_fp16"));
  }
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

absl::Status CheckInput(const v1::LabelInput& input, const v1::Signature& signature) {
  if (static_cast<int64_t>(input.id().size()) > kMaxIdBytes) {
    return absl::InvalidArgumentError(absl::StrCat("id has more than ", kMaxIdBytes, " bytes"));
  }
  if (signature.input() == v1::Signature::INPUT_TEXT) {
    return input.has_text() ? CheckText(input.text())
                            : absl::InvalidArgumentError("has no text; this teacher reads text");
  }
  return input.has_ids() ? CheckIds(input.ids(), signature)
                         : absl::InvalidArgumentError("has no token ids; this teacher reads ids");
}

}  // namespace

absl::Status CheckRequest(const v1::LabelRequest& request, const v1::DescribeReply& teacher) {
  RETURN_IF_ERROR(CheckProtocolVersion(request.protocol_version()));
  RETURN_IF_ERROR(CheckSpec(request.spec(), teacher));
  if (request.timeout_ms() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("timeout_ms ", request.timeout_ms(), " is negative"));
  }
  if (request.inputs().empty() || request.inputs_size() > teacher.max_records_per_request()) {
    return absl::InvalidArgumentError(absl::StrCat("a request holds 1 to ", teacher.max_records_per_request(),
                                                   " inputs, this one ", request.inputs_size()));
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    const absl::Status status = CheckInput(request.inputs(i), teacher.signature());
    if (!status.ok()) return Annotate(status, NameOf(request, i));
  }
  return absl::OkStatus();
}

int64_t TokensAtMost(const v1::LabelRequest& request, const v1::DescribeReply& teacher) {
  int64_t tokens = 0;
  for (const v1::LabelInput& input : request.inputs()) {
    const int64_t most = input.has_ids() ? input.ids().ids_size() : static_cast<int64_t>(input.text().size()) + 1;
    tokens += std::min<int64_t>(most, teacher.signature().max_length());
  }
  return tokens;
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
