#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "polystill/v1/teacher.pb.h"
#include "soft_labels/byte_chunks.h"

namespace polystill::soft_labels {

// A message of a LabelStream, read without a copy of what is long in it.
struct StreamReply {
  // All but the numbers of dense labels (SoftLabels.dense.data), which are empty here.
  v1::LabelStreamReply message;
  // Those, for each of message.reply().labels: within the bytes that were read.
  std::vector<ByteChunks> numbers;
};

// Reads a LabelStreamReply from the buffers that it came in. INVALID_ARGUMENT when the bytes are none: they end early,
// a length leads beyond them, what should be text is not; or they say the numbers of one SoftLabels twice, or hold a
// second message behind a `reply`. As elsewhere, fields that are not known are passed over.
absl::StatusOr<StreamReply> ReadStreamReply(std::span<const std::string_view> buffers);

}  // namespace polystill::soft_labels
