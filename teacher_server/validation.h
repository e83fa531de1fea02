#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::teacher_server {

// Longest id of an input, in bytes.
inline constexpr int64_t kMaxIdBytes = 1024;

// Whether a request fits what the teacher says of itself, before it costs anything. OK; FAILED_PRECONDITION for another
// protocol version or another teacher; INVALID_ARGUMENT names the field, and the record where one is to blame.
absl::Status CheckRequest(const v1::LabelRequest& request, const v1::DescribeReply& teacher);

// Tokens of a valid request, at most: a text has no more than its bytes and two, nor than max_length.
int64_t TokensAtMost(const v1::LabelRequest& request, const v1::DescribeReply& teacher);

// Bytes of the answer to a request.
struct AnswerBytes {
  // As float32, as the model gives it.
  int64_t in_memory = 0;
  // As it travels; by codec sampled, at most.
  int64_t on_wire = 0;
};

// Exact for a valid request; zeros for one that names outputs which the teacher does not have.
AnswerBytes AnswerBytesOf(const v1::LabelRequest& request, const v1::DescribeReply& teacher);

// Whether the answer to a valid request fits a message, and in memory into a batch of at most `batch_bytes`.
// INVALID_ARGUMENT says what to ask less of.
absl::Status CheckAnswerSize(const v1::LabelRequest& request, const v1::DescribeReply& teacher, int64_t batch_bytes);

// Protobuf does not parse a message with text that is not UTF-8, but leaves in it what it has read until then.
// INVALID_ARGUMENT that names the record whose text (or id) it was; OK when the cause was another one.
absl::Status FindBadText(const v1::LabelRequest& partly_parsed);

}  // namespace polystill::teacher_server
