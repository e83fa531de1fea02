#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "polystill/v1/soft_label.pb.h"

namespace polystill::soft_labels {

// Soft labels as zstd frames (RFC 8878) on their way (SoftLabels.uncompressed_bytes). What a label is, and what caches
// and stores keep, is without.

// Compresses the payload, fast rather than well, unless that does not make it smaller.
void Compress(v1::SoftLabels* labels);

// Undoes it; labels that are not compressed stay as they are. INVALID_ARGUMENT when the payload is no such frame, or it
// would be, or says that it is, larger than `most_bytes`; nothing of that size is allocated then.
absl::Status Decompress(int64_t most_bytes, v1::SoftLabels* labels);

}  // namespace polystill::soft_labels
