#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"

namespace polystill::soft_labels {

// Largest head that is fetched, in bytes: 2^24 logits of 256 numbers in float32, or 2^18 of 16,384.
inline constexpr int64_t kMaxHeadBytes = int64_t{16} << 30;

// The file of a teacher's output head, as DescribeReply.head describes it, from the first of its replicas that has it:
// a safetensors file with weight [logits, width] and bias [logits], whose content is the caller's to check. Blocks.
// FAILED_PRECONDITION when `head` is larger than kMaxHeadBytes; else what the last replica said, UNAVAILABLE or
// NOT_FOUND, or DATA_LOSS when it gave other bytes than those of the digest.
absl::StatusOr<std::string> FetchHead(const std::vector<std::string>& addresses, const v1::Head& head);

}  // namespace polystill::soft_labels
